"""Random graphs against the oracle: pruned at random equals the original with the removed elements zeroed."""

import random

import pytest
import torch

from tests.networks import randomised
from tests.random_graphs import IMAGE, RandomNetwork
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.cost import cost, layers, planned_cost
from toolchain.program.rewrite import apply, mask

LIMIT = 1e-9
QUICK, THOROUGH, CHUNK = 40, 2000, 100


def program_of(seed):
    network = RandomNetwork(seed)
    program = capture(randomised(network, seed), (torch.randn(2, *IMAGE).double(),), name=f"seed{seed}")
    return program, network.describe()


def drawn(channels, draw):
    """Uneven kept sets: any number of any units, at least one of each group."""
    return {
        g.name: tuple(sorted(draw.sample(range(g.size), draw.randint(g.minimum, g.size))))
        for g in channels.groups
    }


def results(program, inputs):
    with torch.no_grad():
        found = program.module(*inputs)
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


def deviation(found, wanted):
    scale = max(float(w.abs().max()) for w in wanted)
    return max(float((f - w).abs().max()) for f, w in zip(found, wanted, strict=True)) / max(scale, 1e-9)


def check(seed):
    """Prune twice, each time compared at another batch size; the share of channels that could go at first."""
    program, steps = program_of(seed)
    draw, shares = random.Random(seed), []
    for batch in (3, 1):
        channels = analyse(program)
        shares.append(prunable(program, channels))
        keep = drawn(channels, draw)
        small, masked = apply(program, channels, keep), mask(program, channels, keep)
        inputs = example_inputs(program, batch, seed=seed)
        off = deviation(results(small, inputs), results(masked, inputs))
        assert off < LIMIT, f"seed {seed}, batch {batch}: off by {off:.1e}: {steps}"
        planned = planned_cost(program, channels, {name: len(units) for name, units in keep.items()})
        assert cost(small) == planned, f"seed {seed}: {steps}"
        program = small
    return shares[0]


def prunable(program, channels):
    """Output channels of layers in a group of at least two units, and of all layers."""
    own = {layer.weight: layer.out_channels for layer in layers(program)}
    found = {
        (m.parameter, position)
        for group in channels.groups
        if group.size > 1
        for m in group.members
        if m.parameter in own and m.dim == 0
        for unit in m.index
        for position in unit
    }
    return len(found), sum(own.values())


def test_pruned_random_graphs_equal_their_masked_originals():
    shares = [check(seed) for seed in range(QUICK)]
    # Guards against an analysis that is right because it freezes everything; output layers are in the rest.
    assert sum(s[0] for s in shares) > 0.7 * sum(s[1] for s in shares)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(QUICK, QUICK + THOROUGH, CHUNK))
def test_pruned_random_graphs_equal_their_masked_originals_thoroughly(start):
    for seed in range(start, start + CHUNK):
        check(seed)


def test_the_generator_repeats_itself_and_draws_every_kind_of_step():
    assert RandomNetwork(7).describe() == RandomNetwork(7).describe()
    drawn_steps = {
        step.split("=")[1].split("(")[0].rstrip("0123456789,:/x")
        for seed in range(150)
        for step in RandomNetwork(seed).describe().split("; ")
    }
    wanted = {"conv", "deconv", "add", "cat", "part", "shuffle", "again", "attention", "glu", "einsum", "pad"}
    assert wanted <= drawn_steps
