"""The weight inference rule: what layers sum up is kept on average over which inputs stay."""

from itertools import combinations, product

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests.networks import randomised
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.identity import fingerprint
from toolchain.program.rescale import rescale
from toolchain.program.rewrite import apply


class Additive(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, x):
        return self.last(torch.relu(self.a(x) + self.b(x)))


class Concatenated(nn.Module):
    """Two groups cut unevenly before one layer, flattened over the image."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.last = nn.Linear(7 * 4, 2)

    def forward(self, x):
        return self.last(torch.relu(torch.cat([self.a(x), self.b(x)], 1)).flatten(1))


class Transposed(nn.Module):
    """A transposed convolution, and a matrix of weights multiplied from the right."""

    def __init__(self):
        super().__init__()
        self.a, self.up = nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.matrix = nn.Parameter(torch.empty(4, 2))

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.up(x).flatten(1), x.mean((2, 3)) @ self.matrix


def prepared(network, size=4):
    program = capture(randomised(network), (torch.randn(2, 3, size, size, dtype=torch.float64),), name="net")
    return program, analyse(program)


def outputs(program, x):
    found = program.module(x)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize(
    ("network", "size", "kept"),
    [(Additive, 4, {"a": 3}), (Concatenated, 2, {"a": 2, "b": 1}), (Transposed, 3, {"a": 1})],
)
def test_sums_stay_what_they_were_on_average(network, size, kept):
    """Over all subsets of the inputs, each as likely as every other: exactly the original's outputs."""
    program, channels = prepared(network(), size)
    x = torch.randn(3, 3, size, size, dtype=torch.float64)
    sizes = {group.name: group.size for group in channels.groups}
    assert set(kept) <= set(sizes)
    choices = list(product(*(combinations(range(sizes[name]), count) for name, count in kept.items())))
    total = None
    for choice in choices:
        keep = dict(zip(kept, choice, strict=True))
        found = outputs(rescale(program, apply(program, channels, keep), channels, keep, "all").program, x)
        total = found if total is None else tuple(t + f for t, f in zip(total, found, strict=True))
    for summed, wanted in zip(total, outputs(program, x), strict=True):
        torch.testing.assert_close(summed / len(choices), wanted, rtol=1e-10, atol=1e-10)


def test_each_input_is_multiplied_by_the_inverse_share_of_its_own_group():
    program, channels = prepared(Concatenated(), 2)
    keep = {"a": (1, 3), "b": (2,)}
    cut = apply(program, channels, keep)
    identity = fingerprint(cut)
    found = rescale(program, cut, channels, keep)
    ratio = found.program.module.last.weight / cut.module.last.weight
    expected = torch.tensor([4 / 2] * 8 + [3 / 1] * 4, dtype=torch.float64)
    torch.testing.assert_close(ratio, expected.expand(2, 12))
    assert torch.equal(found.program.module.last.bias, cut.module.last.bias)
    assert (found.weights, found.left) == (("last.weight",), ())
    assert fingerprint(cut) == identity, "what was handed in is not changed"


def test_convolutions_are_rescaled_only_when_asked_for():
    program, channels = prepared(Additive())
    keep = {"a": (0, 2, 3)}
    cut = apply(program, channels, keep)
    assert rescale(program, cut, channels, keep, "linear").weights == ()
    found = rescale(program, cut, channels, keep, "all")
    assert found.weights == ("last.weight",)
    torch.testing.assert_close(found.program.module.last.weight, cut.module.last.weight * (4 / 3))


def test_without_a_cut_nothing_changes():
    program, channels = prepared(Concatenated(), 2)
    found = rescale(program, apply(program, channels, {}), channels, {}, "all")
    assert fingerprint(found.program) == fingerprint(program)
    assert (found.weights, found.left) == ((), ())


class Tied(nn.Module):
    """The head's weight is the embedding's: multiplied for one, it would be wrong for the other."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.empty(5, 6))
        self.mix = nn.Linear(6, 6)

    def forward(self, x):
        return functional.linear(self.mix(self.table[:3].mean(0) + x.mean((1, 2, 3))[:, None]), self.table)


class Computed(nn.Module):
    """A weight that the graph computes, and attention between activations."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(3, 4, 1) for _ in range(3))
        self.last = parametrizations.weight_norm(nn.Linear(4, 2))

    def forward(self, x):
        q, k, v = (f(x).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.last(functional.scaled_dot_product_attention(q, k, v, scale=1.0))


@pytest.mark.parametrize(("network", "least"), [(Tied, {"linear_1"}), (Computed, {"linear"})])
def test_where_the_rule_is_not_defined_it_is_said(network, least):
    program, channels = prepared(network())
    keep = {group.name: tuple(range(group.size // 2)) for group in channels.groups}
    cut = apply(program, channels, keep)
    found = rescale(program, cut, channels, keep, "all")
    assert least <= set(found.left)
    assert not {"table", "last.parametrizations.weight.original1"} & set(found.weights)
    attends = [n for n in cut.module.graph.nodes if "scaled_dot" in str(n.target)]
    queries = [n.args[0].meta["val"].shape[-1] for n in attends]
    assert all((n.name in found.left) == (width < 4) for n, width in zip(attends, queries, strict=True))
