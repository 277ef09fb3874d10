"""Which additions may be loose, what their channels depend on, and what is left of them in the graph."""

import pytest
import torch
from torch import nn

from tests.networks import Block, OptionA, Residual, randomised
from toolchain.program.axes import call_of
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.connecting import completed, connected, loosened
from toolchain.program.cost import cost
from toolchain.program.lower import lower
from toolchain.program.rewrite import apply, mask
from toolchain.program.summing import PIECES


def captured(network):
    made = randomised(network())
    return loosened(capture(made, (torch.randn(2, *made.shape, dtype=torch.float64),), name="network"))


def operators(program):
    calls = [call_of(node) for node in program.module.graph.nodes]
    return [call.op for call in calls if call is not None]


@pytest.fixture(scope="module")
def residual():
    return captured(Residual)


def test_every_branch_has_a_group_and_what_is_read_stays_with_any_of_them(residual):
    channels = analyse(residual)
    names = [group.name for group in channels.groups]
    assert {"stem", "blocks.0.conv2", "blocks.1.conv2", "blocks.1.short", "blocks.2.conv2"} <= set(names)
    sources = {frozenset(name for name, _ in group.sources[0]) for group in channels.merged}
    assert sources == {
        frozenset({"stem", "blocks.0.conv2"}),
        frozenset({"blocks.1.conv2", "blocks.1.short"}),
        frozenset({"blocks.1.conv2", "blocks.1.short", "blocks.2.conv2"}),
    }
    assert all(
        unit == u for group in channels.merged for u, units in enumerate(group.sources) for _, unit in units
    )


def test_what_loose_additions_put_out_follows_from_the_rest(residual):
    channels = analyse(residual)
    keep = completed(channels, {"stem": (0, 1), "blocks.0.conv2": (1, 4)})
    found = {frozenset(n for n, _ in group.sources[0]): keep[group.name] for group in channels.merged}
    assert found[frozenset({"stem", "blocks.0.conv2"})] == (0, 1, 4)


def test_zeros_that_were_padded_are_no_channels(residual):
    del residual
    program = captured(OptionA)
    channels = analyse(program)
    assert len(program.loose) == 3
    keep = {"two": (0, 5), "three.conv2": (5, 6)}
    small = apply(program, channels, keep)
    trunk = [layer for name, layer in small.module.named_parameters() if name == "three.conv1.weight"]
    assert trunk[0].shape[1] == 2 + 6 - 1, "two channels of the branch, six of the shortcut, one in both"


class Sigmoid(Residual):
    def forward(self, x):
        x = self.stem(x)
        return self.head(self.blocks[1:](x + torch.sigmoid(self.blocks[0].conv1(x))).mean((2, 3)))


class ReadAfterwards(Residual):
    def forward(self, x):
        x = self.stem(x)
        y = self.blocks[0].conv1(x)
        earlier = y.flatten(2)
        y = y.add_(x)
        return self.head(self.blocks[1:](y * earlier.unflatten(2, (8, 8))).mean((2, 3)))


class PutOut(Residual):
    def forward(self, x):
        x = self.stem(x)
        return x + self.blocks[0].conv1(x)


@pytest.mark.parametrize("network", [Sigmoid, ReadAfterwards, PutOut])
def test_an_addition_that_cannot_be_loose_ties_its_branches(network):
    program = captured(network)
    channels = analyse(program)
    assert not any("blocks.0.conv1" in g.name and g.sources for g in channels.merged)
    for group in channels.all:
        assert (("stem.weight", 0) in members(group)) == (("blocks.0.conv1.weight", 0) in members(group))


def members(group):
    return {(m.parameter, m.dim) for m in group.members}


def test_channels_side_by_side_leave_slices_and_a_concatenation(residual):
    keep = {"stem": (0, 2, 4), "blocks.0.conv2": (1, 2, 4, 5), "blocks.1.short": (0, 3, 7)}
    found = operators(connected(residual, keep))
    assert "index_select" not in found
    assert found.count("cat") == 2
    assert found.count("slice") <= 2 * 4


class Wide(nn.Module):
    shape = (3, 6, 6)

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 32, 3, padding=1), Block(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean((2, 3)))


def test_too_many_pieces_become_a_plain_addition_of_what_is_spread_out():
    program = captured(Wide)
    channels = analyse(program)
    keep = {"stem": tuple(range(0, 32, 2)), "block.conv2": tuple(range(0, 32, 3))}
    small, masked = apply(program, channels, keep), mask(program, channels, keep)
    assert "cat" not in operators(small)
    assert operators(small).count("index_select") == 2
    x = example_inputs(program, 3)
    with torch.no_grad():
        torch.testing.assert_close(small.module(*x), masked.module(*x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(lower(small).module(*x), small.module(*x), rtol=1e-12, atol=1e-12)
    assert not {"pad", "index_select"} & set(operators(lower(small))), (
        "a convolution stays in the runtime's layout"
    )
    ordered = connected(program, keep)
    assert "index_select" not in operators(ordered)
    assert operators(ordered).count("slice") <= PIECES + 1
    assert cost(ordered) == cost(small)


def test_less_is_computed_than_where_branches_are_tied(residual):
    keep = {"stem": (0, 1, 2), "blocks.0.conv2": (3, 4, 5)}
    small = connected(residual, keep)
    shapes = {name: tuple(p.shape) for name, p in small.module.named_parameters()}
    assert (
        shapes["stem.weight"][0]
        == shapes["blocks.0.conv1.weight"][1]
        == shapes["blocks.0.conv2.weight"][0]
        == 3
    )
    assert shapes["blocks.1.conv1.weight"][1] == 6
