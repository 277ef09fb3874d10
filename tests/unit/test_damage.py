"""Silencing units and blocks in the trial network is the same as cutting them."""

from types import SimpleNamespace

import pytest
import torch

from tests.unit.test_program_blocks import Net
from toolchain.damage import LEAST, Damages, _trial, axes_of
from toolchain.program.blocks import drop
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.resize import resized
from toolchain.program.rewrite import apply
from toolchain.resources import shape_of
from toolchain.train.distil import distillation_loss
from toolchain.train.reestimate import adaptive
from toolchain.values import Budget, Group, Learning


@pytest.fixture(scope="module")
def ground():
    torch.manual_seed(0)
    program = capture(Net(inplace=True), (torch.randn(2, 3, 8, 8),), name="net")
    run = SimpleNamespace(program=program, channels=analyse(program), origin=None)
    batch = ((torch.randn(16, 3, 8, 8),), torch.arange(16) % 5)
    return run, _trial(run, shape_of(run), batch), batch


def divergence(program, run, batch):
    with torch.no_grad():
        found, original = adaptive(program)[0](*batch[0]), run.program.module(*batch[0])
    return float(distillation_loss((found,), (original,), batch[1], temperature=1, weight=1))


def test_a_silenced_group_is_a_cut_group(ground):
    run, trial, batch = ground
    for group in run.channels.groups:
        scores = [float(u + 1) for u in range(group.size)]
        gone = group.size - group.size // 2
        cut = apply(run.program, run.channels, {group.name: tuple(range(gone, group.size))})
        expected = divergence(cut, run, batch) / sum(scores[:gone])
        assert trial.nats_per_score(group, scores) == pytest.approx(expected, rel=1e-3)


def test_a_gated_block_is_a_dropped_block(ground):
    run, trial, batch = ground
    for block in shape_of(run).blocks:
        expected = divergence(drop(run.program, [block.name]), run, batch)
        assert trial.without_block(block) == pytest.approx(expected, rel=1e-3)


def test_trials_leave_the_network_as_it_was(ground):
    run, trial, _ = ground
    before = trial._divergence()
    trial.nats_per_score(run.channels.groups[0], [1.0] * run.channels.groups[0].size)
    trial.without_block(shape_of(run).blocks[0])
    assert trial._divergence() == before


def test_cuts_on_smaller_images_cost_nothing_but_themselves(ground):
    """What the size does to the statistics is the size's damage, not once more that of every group."""
    run, _, batch = ground
    program = resized(run.program, (6, 6))
    small = SimpleNamespace(program=program, channels=analyse(program), origin=run)
    x = (batch[0][0][:, :, :6, :6].contiguous(),)
    assert _trial(small, shape_of(small), (x, batch[1]))._divergence() == LEAST
    assert _trial(run, shape_of(run), batch)._divergence() > LEAST


@pytest.mark.parametrize(
    ("method", "ms", "widths"),
    [
        ("planner", None, (32, 24, 16, 8)),
        ("bar", 5.0, (32, 24, 16, 8)),
        ("bar", None, tuple(range(32, 0, -1))),
    ],
)
def test_a_method_is_followed_to_the_channel_where_no_time_is_limited(method, ms, widths):
    group = Group(name="g", size=32, members=(), minimum=1)
    request = SimpleNamespace(learning=Learning(method=method), budget=Budget(ms=ms, macs=1))
    run = SimpleNamespace(request=request, channels=SimpleNamespace(groups=(group,)))
    damages = Damages(criterion="", scores={"g": (1.0,) * 32}, scale={}, blocks={})
    (axis,) = axes_of(run, damages, 8)
    assert axis.levels == widths
