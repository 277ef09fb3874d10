"""Gates as factors on parameters: at 0 they are the oracle's mask, in between part of the weights."""

import pytest
import torch
from torch import nn

from tests.networks import TOPOLOGIES, Normed, Residual, randomised
from toolchain.program.blocks import blocks, drop
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.gating import block_site, group_sites, multiplied
from toolchain.program.rewrite import apply, mask


def captured(network):
    made = randomised(network())
    sample = torch.randn(3, *made.shape, dtype=torch.float64)
    return capture(made, (sample[:2],), name="network"), sample


def run(program, weights, sample):
    module = program.module
    with torch.no_grad():
        return torch.func.functional_call(module, weights, (sample,))


def gated(program, sites, gates, sample):
    named = dict(program.module.named_parameters(remove_duplicate=False))
    return run(program, multiplied(named, sites, gates), sample)


def closed(channels, seed):
    """Half of every group's units, but for its minimum."""
    random = torch.Generator().manual_seed(seed)
    keep = {}
    for group in channels.groups:
        count = max(group.minimum, group.size // 2)
        keep[group.name] = tuple(sorted(torch.randperm(group.size, generator=random)[:count].tolist()))
    gates = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in channels.groups}
    for name, units in keep.items():
        gates[name][list(units)] = 1
    return keep, gates


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_closed_gates_are_what_cutting_leaves(name):
    program, sample = captured(TOPOLOGIES[name])
    channels, sites = analyse(program), group_sites(program)
    assert [s.name for s in sites] == [g.name for g in channels.groups]
    assert all(s.factors for s in sites)
    for seed in range(3):
        keep, gates = closed(channels, seed)
        plain = {g.name: keep[g.name] for g in channels.groups if not g.note}
        gates = {n: gates[n] if n in plain else torch.ones_like(g) for n, g in gates.items()}
        expected = run(mask(program, channels, plain), {}, sample)
        found = gated(program, sites, gates, sample)
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
        cut = run(apply(program, channels, plain), {}, sample)
        assert torch.allclose(found, cut, rtol=1e-9, atol=1e-9)


def test_half_open_gates_stay_when_they_become_weights():
    program, sample = captured(Residual)
    sites = group_sites(program)
    gates = {s.name: torch.rand(s.size, dtype=torch.float64) for s in sites}
    with_gates = gated(program, sites, gates, sample)
    block = blocks(program)[0]
    site = block_site(program, block, "block")
    half = gated(program, [site], {"block": torch.tensor([0.5], dtype=torch.float64)}, sample)
    assert not torch.allclose(with_gates, half)
    named = dict(program.module.named_parameters())
    folded = multiplied(named, sites, gates)
    assert torch.allclose(run(program, folded, sample), with_gates)
    assert set(folded) == {factor.parameter for s in sites for factor in s.factors}


@pytest.mark.parametrize("name", ["residual", "option A", "attention", "normalisations", "separate q k v"])
def test_a_closed_block_is_what_dropping_leaves(name):
    program, sample = captured(TOPOLOGIES[name])
    found = blocks(program)
    assert found
    for block in found:
        site = block_site(program, block, "block")
        closed = gated(program, [site], {"block": torch.zeros(1, dtype=torch.float64)}, sample)
        assert torch.allclose(closed, run(drop(program, [block.name]), {}, sample), rtol=1e-9, atol=1e-9)


class Curved(Residual):
    """Branches that end in what a factor does not pass through, and in a scale that others read."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Identity()
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x)
        x = x + torch.tanh(self.a(x))
        x = x + self.b(self.b(x))
        return self.head(x.mean((2, 3)))


def test_a_branch_that_no_factor_can_multiply_has_no_gate():
    program, _ = captured(Curved)
    found = blocks(program)
    assert len(found) == 2
    assert [block_site(program, block, "block") for block in found] == [None, None]


def test_a_layer_scale_takes_the_block_s_gate():
    program, _ = captured(Normed)
    (block,) = blocks(program)
    assert [f.parameter for f in block_site(program, block, "block").factors] == ["gamma"]
