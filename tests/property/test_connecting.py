"""Mixed connectivity: branches that keep different channels equal the masked original, in any order."""

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.networks import TOPOLOGIES, Block
from tests.oracle import EXACT, QUICK, captured_in_double, keeps, relative
from toolchain.program.blocks import blocks, drop
from toolchain.program.capture import capture, example_inputs, fingerprint
from toolchain.program.channels import analyse, examine, widths
from toolchain.program.connecting import carried, completed, connected, loosened
from toolchain.program.cost import cost, planned_cost
from toolchain.program.ordering import _moves, _permuted, arranged, movable
from toolchain.program.rewrite import apply, mask


class Stage(nn.Module):
    """Four blocks in a row, in place and not, the first of them pooling."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 8), Block(8, 12, 2), Block(12, 12))
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.blocks(F.max_pool2d(self.stem(x), 2)).mean((2, 3)))


class Before(nn.Module):
    """Pre-activation: batch norms read the trunk."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)
        for name in "abc":
            self.add_module(f"{name}_norm1", nn.BatchNorm2d(8))
            self.add_module(f"{name}_conv1", nn.Conv2d(8, 6, 3, padding=1, bias=False))
            self.add_module(f"{name}_norm2", nn.BatchNorm2d(6))
            self.add_module(f"{name}_conv2", nn.Conv2d(6, 8, 3, padding=1))

    def forward(self, x):
        x = self.stem(x)
        for name in "abc":
            layer = functools.partial(getattr, self)
            y = layer(f"{name}_conv1")(F.relu(layer(f"{name}_norm1")(x)))
            x = x + layer(f"{name}_conv2")(F.relu(layer(f"{name}_norm2")(y)))
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Several(nn.Module):
    """Three branches added at once, and a gate over the sum."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 8, 3, padding=1) for _ in range(3))
        self.gate, self.next, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        y = F.relu(self.a(x)) + self.b(x) + F.hardswish(self.c(x))
        y = y * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        return self.head(self.next(y).mean((2, 3)))


NETWORKS = {
    "stage": Stage,
    "pre-activation": Before,
    "several branches": Several,
    **{
        name: TOPOLOGIES[name]
        for name in ("residual", "option A", "attention", "separate q k v", "normalisations")
    },
    "depthwise": TOPOLOGIES["depthwise, squeeze and excite"],
}


@functools.cache
def captured(name):
    return captured_in_double({**TOPOLOGIES, **NETWORKS}[name](), name)


@functools.cache
def loose(name):
    return loosened(captured(name))


def counted(keep):
    return {group: len(units) for group, units in keep.items()}


@pytest.mark.parametrize("name", NETWORKS)
@QUICK
@given(data=st.data(), batch=st.sampled_from([1, 3]))
def test_branches_with_channels_of_their_own_equal_the_masked_original(name, data, batch):
    program, channels = loose(name), analyse(loose(name))
    before = fingerprint(program)
    keep = data.draw(keeps(channels))
    small, masked = apply(program, channels, keep), mask(program, channels, keep)
    inputs = example_inputs(program, batch, seed=1)
    with torch.no_grad():
        wanted = masked.module(*inputs)
        assert relative(small.module(*inputs), wanted) < EXACT
        assert relative(connected(program, keep).module(*inputs), wanted) < EXACT, "in another order"
    counts = counted(completed(channels, keep))
    assert cost(small) == planned_cost(program, channels, counts) == cost(connected(program, keep))
    sizes = widths(program, channels)
    for parameter, tensor in small.module.named_parameters():
        assert tuple(tensor.shape) == tuple(sizes.of(parameter, d, counts) for d in range(tensor.dim()))
    assert fingerprint(program) == before


@pytest.mark.parametrize("name", NETWORKS)
@settings(QUICK, max_examples=3)
@given(data=st.data())
def test_a_mixed_network_can_be_cut_again_and_exported(name, data):
    program, channels = loose(name), analyse(loose(name))
    once = connected(program, data.draw(keeps(channels)))
    again = analyse(once)
    keep = data.draw(keeps(again))
    inputs = example_inputs(program, 2, seed=2)
    small = apply(once, again, keep)
    with torch.no_grad():
        assert relative(small.module(*inputs), mask(once, again, keep).module(*inputs)) < EXACT
        exported = capture(small.module, example_inputs(small, 2), name=name)
        assert exported.inputs[0].shape[0] is None
        more = example_inputs(small, 5, seed=3)
        assert torch.equal(exported.module(*more), small.module(*more))


@pytest.mark.parametrize("name", ["stage", "residual", "option A", "pre-activation"])
@settings(QUICK, max_examples=4)
@given(data=st.data())
def test_blocks_are_left_out_first(name, data):
    program, channels = loose(name), analyse(loose(name))
    names = [block.name for block in blocks(program)]
    dropped = data.draw(st.sets(st.sampled_from(names), min_size=1))
    keep = data.draw(keeps(channels))
    less = drop(program, dropped)
    rest = carried(channels, keep, analyse(less))
    inputs = example_inputs(program, 2, seed=4)
    with torch.no_grad():
        wanted = mask(less, analyse(less), rest).module(*inputs)
        assert relative(connected(program, keep, dropped).module(*inputs), wanted) < EXACT


@pytest.mark.parametrize("name", TOPOLOGIES)
@settings(QUICK, max_examples=3)
@given(data=st.data())
def test_channels_in_another_order_compute_the_same(name, data):
    program = captured(name)
    analysis = examine(program)
    groups = {n: g for n, g in enumerate(analysis.channels.groups) if movable(analysis, n)}
    orders = {n: data.draw(st.permutations(range(g.size)), label=g.name) for n, g in groups.items()}
    inputs = example_inputs(program, 2, seed=5)
    with torch.no_grad():
        moved = _permuted(program, _moves(analysis, orders))
        assert relative(moved.module(*inputs), program.module(*inputs)) < EXACT
    assert analyse(moved) == analysis.channels


def test_channels_of_a_plain_network_can_change_places():
    for name in ("chain", "residual", "concatenation", "option A"):
        analysis = examine(captured(name))
        assert all(movable(analysis, n) for n in range(len(analysis.channels.groups))), name


def test_without_loose_additions_nothing_is_merged():
    program = captured("residual")
    assert analyse(replace(loose("residual"), loose=())) == analyse(program)
    assert analyse(program).merged == ()
    ready, keep = arranged(loose("residual"), {}, {})
    assert ready is loose("residual")
    assert keep == {}
