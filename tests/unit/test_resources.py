"""Planned resources equal those of the rewritten network, with cut groups and dropped blocks."""

import random
from types import SimpleNamespace

import pytest
import torch

from tests.unit.test_program_blocks import Net
from toolchain.contest import reduce
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.resources import BLOCK, shape_of
from toolchain.values import PrunePlan


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    return capture(Net(inplace=False), (torch.randn(2, 3, 8, 8),), name="net")


@pytest.mark.parametrize("seed", range(6))
def test_planned_cost_is_the_cost_of_the_result(program, seed):
    draw = random.Random(seed)
    channels = analyse(program)
    shape = shape_of(SimpleNamespace(program=program, channels=channels))
    keep = {
        g.name: tuple(sorted(draw.sample(range(g.size), draw.randint(1, g.size)))) for g in channels.groups
    }
    dropped = tuple(b.name for b in shape.blocks if draw.random() < 0.5)
    counts = {name: len(units) for name, units in keep.items()} | {BLOCK + name: 0 for name in dropped}
    plan = PrunePlan(program="", criterion="random", keep=keep, dropped=dropped)
    assert shape.cost(counts) == cost(reduce(program, channels, plan))


def test_the_whole_network_costs_what_it_costs(program):
    shape = shape_of(SimpleNamespace(program=program, channels=analyse(program)))
    assert shape.cost({}) == cost(program)
