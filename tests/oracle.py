"""The oracle as a function: a pruned program equals its original with the removed elements zeroed."""

import random

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.networks import randomised
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.cost import cost, layers, planned_cost
from toolchain.program.rewrite import apply, mask

LIMIT = 1e-9
"""Relative to the largest output, in float64; what is found is near 1e-15."""
EXACT = 1e-11
"""The same for a small network's only output."""
QUICK = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)


def captured_in_double(network, name):
    """The network with weights at random, as a program in float64."""
    return capture(randomised(network), (torch.randn(2, *network.shape, dtype=torch.float64),), name=name)


@st.composite
def keeps(draw, channels):
    """Any kept set of any group, as many units each as have to stay."""
    chosen = {}
    for group in channels.groups:
        units = st.sets(st.integers(0, group.size - 1), min_size=group.minimum, max_size=group.size)
        chosen[group.name] = tuple(sorted(draw(units, label=group.name)))
    return chosen


def drawn(channels, draw, share=None):
    """Units to keep: `share` of each group, or any number (at least one) of each, chosen at random."""
    keep = {}
    for group in channels.groups:
        count = (
            max(group.minimum, round(share * group.size))
            if share
            else draw.randint(group.minimum, group.size)
        )
        keep[group.name] = tuple(sorted(draw.sample(range(group.size), count)))
    return keep


def results(program, inputs):
    with torch.no_grad():
        found = program.module(*inputs)
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


def deviation(found, wanted, least=1e-9):
    """The largest difference of several outputs, relative to the largest number wanted (or to `least`)."""
    scale = max(float(w.abs().max()) for w in wanted)
    return max(float((f - w).abs().max()) for f, w in zip(found, wanted, strict=True)) / max(scale, least)


def relative(found, wanted):
    """`deviation` of one output, however small."""
    return deviation((found,), (wanted,), least=1e-300)


def pruned(program, *, seed, batch, share=None, note=""):
    """The program pruned at random, after comparing it with the masked original and the planned cost."""
    channels, draw = analyse(program), random.Random(seed)
    keep = drawn(channels, draw, share)
    small, masked = apply(program, channels, keep), mask(program, channels, keep)
    inputs = example_inputs(program, batch, seed=seed)
    off = deviation(results(small, inputs), results(masked, inputs))
    assert off < LIMIT, f"off by {off:.1e} (seed {seed}, batch {batch}) {note}"
    planned = planned_cost(program, channels, {name: len(units) for name, units in keep.items()})
    assert cost(small) == planned, note
    return small


def prunable(program, channels, *, without=()):
    """Output channels of layers that are in a group of at least two units, and of all layers.

    Layers whose weight's name begins with one of `without` are left out.
    """
    own = {}
    for layer in layers(program):
        if not layer.weight.startswith(tuple(without)):
            own[layer.weight, 1 if layer.transposed else 0] = layer
    found = {
        (m.parameter, position)
        for group in channels.groups
        if group.size > 1
        for m in group.members
        if (m.parameter, m.dim) in own
        for unit in m.index
        for position in unit
    }
    sizes = [layer.out_channels // (layer.groups if layer.transposed else 1) for layer in own.values()]
    return len(found), sum(sizes)
