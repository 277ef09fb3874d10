"""A channel shuffle is one permutation: it ties nothing, and a cut leaves a list of places."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.networks import randomised
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.cost import cost, planned_cost
from toolchain.program.labels import FIXED, Labels
from toolchain.program.rewrite import apply, mask

GROUPS, WIDTH, SIDE = 3, 12, 8
WAYS = {
    "view": lambda x: x.view(-1, GROUPS, 4, SIDE, SIDE).transpose(1, 2).reshape(-1, WIDTH, SIDE, SIDE),
    "contiguous": lambda x: (
        x.view(-1, GROUPS, 4, SIDE, SIDE).transpose(2, 1).contiguous().view(-1, WIDTH, SIDE, SIDE)
    ),
    "permute": lambda x: x.unflatten(1, (GROUPS, 4)).permute(0, 2, 1, 3, 4).flatten(1, 2),
    "module": nn.ChannelShuffle(GROUPS),
}


class Shuffled(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way = way
        self.stem, self.last = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(F.relu(self.last(self.way(F.relu(self.stem(x))))).mean((2, 3)))


def captured(network):
    return capture(randomised(network), (torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64),), name="net")


def pruned_equals_masked(program, seed):
    channels, chance = analyse(program), random.Random(seed)
    keep = {
        g.name: tuple(sorted(chance.sample(range(g.size), chance.randint(1, g.size))))
        for g in channels.groups
    }
    small, masked = apply(program, channels, keep), mask(program, channels, keep)
    x = example_inputs(program, 3, seed=seed)
    with torch.no_grad():
        found, wanted = small.module(*x), masked.module(*x)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-9
    assert cost(small) == planned_cost(program, channels, {g: len(u) for g, u in keep.items()})
    return small


@pytest.mark.parametrize("way", WAYS)
def test_every_channel_before_a_shuffle_goes_alone(way):
    program = captured(Shuffled(WAYS[way]))
    assert {g.name: g.size for g in analyse(program).groups} == {"stem": WIDTH, "last": 6}
    small = pruned_equals_masked(program, 0)
    assert "index_select" in small.module.code
    assert "transpose" not in small.module.code
    pruned_equals_masked(small, 1)


def test_a_view_that_others_read_too_is_no_shuffle():
    def way(x):
        parts = x.view(-1, GROUPS, 4, SIDE, SIDE)
        return parts.transpose(1, 2).reshape(x.shape) + parts.mean(2).repeat_interleave(4, 1)

    program = captured(Shuffled(way))
    for seed in range(3):
        pruned_equals_masked(program, seed)


def test_a_row_of_shuffles_leaves_every_channel_removable():
    class Row(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 32, 3, padding=1)
            self.units = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(3))
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            x = self.stem(x)
            for unit in self.units:
                left, right = x.chunk(2, 1)
                x = torch.cat([left, F.relu(unit(right))], 1)
                x = x.view(-1, 2, 16, SIDE, SIDE).transpose(1, 2).reshape(-1, 32, SIDE, SIDE)
            return self.head(x.mean((2, 3)))

    program = captured(Row())
    removable = {
        (m.parameter, position)
        for g in analyse(program).groups
        if g.size > 1
        for m in g.members
        if m.dim == 0 and m.parameter.endswith("weight")
        for unit in m.index
        for position in unit
    }
    assert len(removable) == 32 + 3 * 16
    for seed in range(3):
        pruned_equals_masked(pruned_equals_masked(program, seed), seed)


def test_a_tie_holds_at_every_position_of_a_label_that_freezes():
    labels = Labels()
    (a,), (b,) = labels.fresh(1), labels.fresh(1)
    labels.tie(np.array([a, a]), np.array([FIXED, b]), "why")
    assert labels.roots(np.array([a, b])).tolist() == [FIXED, FIXED]
