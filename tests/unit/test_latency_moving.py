"""What operators without weights move: which they are, how much at any widths, and how it is paid for."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.unit.test_latency_table import RUNTIME, Formula
from toolchain.latency.filling import build_table
from toolchain.latency.moving import movers
from toolchain.program.blocks import drop
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import volumes
from toolchain.program.rewrite import apply
from toolchain.resources import BLOCK, latency_of, shape_of


class Excited(nn.Module):
    """A convolution whose channels are scaled by what they hold on average, added to its input."""

    def __init__(self, width, inner):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)
        self.norm = nn.BatchNorm2d(width)
        self.down, self.up = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x):
        y = nn.functional.silu(self.norm(self.conv(x)))
        scale = torch.sigmoid(self.up(torch.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return x + y * scale


class Network(nn.Module):
    def __init__(self, width=16, inner=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU6())
        self.first, self.second = Excited(width, inner), Excited(width, inner)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        y = self.second(self.first(self.stem(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(nn.functional.relu(y), 1).flatten(1))


@pytest.fixture(scope="module")
def program():
    return capture(Network().eval(), (torch.randn(2, 3, 16, 16),), name="excited")


def volume_of(program, channels, counts):
    """Elements that all movers move, at these counts."""
    names = {g.name: g.size for g in channels.groups}
    total = 0
    for parts in volumes(program, channels, {m.node for m in movers(program)}).values():
        for coefficient, groups in parts:
            value = coefficient
            for group in groups:
                value *= counts.get(group, names[group])
            total += value
    return total


def test_movers_are_what_is_not_fused_into_a_layer(program):
    operators = {
        n.name: str(n.target).split(".")[1] for n in program.module.graph.nodes if "aten" in str(n.target)
    }
    found = [operators[m.node] for m in movers(program)]
    assert [name for name in found if name in ("relu6", "hardtanh", "clamp")]
    assert {"silu", "sigmoid", "mul", "mean", "add", "adaptive_avg_pool2d"} <= set(found)
    assert not {"conv2d", "batch_norm", "linear"} & set(found)
    effort = {operators[m.node]: m.effort for m in movers(program)}
    assert effort["silu"] > effort["add"] == effort["hardtanh" if "hardtanh" in effort else "relu6"]


def test_volumes_at_counts_are_those_of_the_pruned_network(program):
    channels = analyse(program)
    counts = {g.name: max(1, g.size // (2 + n)) for n, g in enumerate(channels.groups)}
    pruned = apply(program, channels, {name: tuple(range(count)) for name, count in counts.items()})
    predicted = volume_of(program, channels, counts)
    assert predicted == volume_of(pruned, analyse(pruned), {})
    assert predicted < volume_of(program, channels, {})


def test_an_addition_moves_both_operands_and_the_sum(program):
    channels = analyse(program)
    (add, *_) = [m.node for m in movers(program) if m.node.startswith("add")]
    assert sum(c for c, _ in volumes(program, channels, {add})[add]) * 16 == 3 * 16 * 8 * 8


@pytest.fixture(scope="module")
def planned(program, tmp_path_factory):
    shape = shape_of(SimpleNamespace(program=program, channels=analyse(program)))
    table = build_table(
        Formula(), RUNTIME, "fp32", shape.layers, {}, threads=1,
        cache=tmp_path_factory.mktemp("timings"), progress=SimpleNamespace(step=lambda *_: None),
    )  # fmt: skip
    kernels = sum(table.layer_ms(a, a.in_channels, a.out_channels, a.groups) for a in shape.layers)
    return latency_of(table, shape, [({}, kernels + 3.0)]), kernels + 3.0


def test_the_terms_sum_to_the_measured_original(planned):
    latency, whole_ms = planned
    assert latency.ms_of_counts({}) == pytest.approx(whole_ms)


def test_a_dropped_block_moves_nothing(program, planned):
    """Its addition goes with it; what is left moves as much as in the network without it."""
    latency, _ = planned
    block = latency.shape.blocks[0].name
    moved = latency.model.moved_ms()

    def moving(counts):
        return sum(float(t.values(counts)) for t in latency.terms()[len(latency.shape.layers) :])

    assert moving({}) == pytest.approx(moved)
    dropped = drop(program, [block])
    effort = {m.node: m.effort for m in movers(program)}

    def weighted(made):
        known = volumes(made, analyse(made), {m.node for m in movers(made)})
        sizes = {g.name: g.size for g in analyse(made).groups}
        total = 0.0
        for node, parts in known.items():
            for coefficient, groups in parts:
                value = effort[node] * coefficient
                for group in groups:
                    value *= sizes[group]
                total += value
        return total

    assert moving({BLOCK + block: 0}) == pytest.approx(moved * weighted(dropped) / weighted(program))


def test_a_correction_is_exact_where_it_was_measured_and_keeps_what_was_known(planned):
    latency, whole_ms = planned
    group = latency.shape.costs.names[0]
    counts = {group: 4}
    before = latency.ms_of_counts(counts)
    corrected = latency.corrected(counts, 1.1 * before)
    assert corrected.ms_of_counts(counts) == pytest.approx(1.1 * before)
    assert abs(corrected.ms_of_counts({}) / whole_ms - 1) < 0.1
    assert corrected.known == (*latency.known, (counts, 1.1 * before))
