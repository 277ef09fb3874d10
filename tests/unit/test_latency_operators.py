"""Operators of a program: arithmetic equals the cost model's, fusion, constants, and amounts by kind."""

import pytest
import torch
from torch import nn

from toolchain.latency.operators import KINDS, operators
from toolchain.latency.terms import INFERENCE, TERMS, amounts, rounded
from toolchain.program.capture import capture
from toolchain.program.cost import cost


def traced(module, *shapes):
    return capture(module.eval(), tuple(torch.randn(2, *shape) for shape in shapes), name="net")


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(32, 96), nn.Linear(32, 32), nn.LayerNorm(32)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).reshape(-1, 10, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


CNN = nn.Sequential(
    nn.Conv2d(3, 8, 3, 2, 1, bias=False),
    nn.BatchNorm2d(8),
    nn.ReLU6(),
    nn.Conv2d(8, 8, 3, 1, 1, groups=8),
    nn.Hardswish(),
    nn.Conv2d(8, 12, 1),
    nn.ConvTranspose2d(12, 4, 2, 2),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(4, 10),
)


@pytest.mark.parametrize(("module", "shape"), [(CNN, (3, 16, 16)), (Attention(), (10, 32))])
def test_arithmetic_is_that_of_the_cost_model(module, shape):
    program = traced(module, shape)
    assert sum(o.macs for o in operators(program)) == cost(program).macs


def test_kinds_and_what_is_fused():
    found = operators(traced(CNN, (3, 16, 16)))
    kinds = [o.kind for o in found]
    assert kinds == ["dense", "depthwise", "activation", "pointwise", "dense", "pool", "matrix"]
    assert [o.op for o in found if o.kind == "activation"] == ["hardswish"]
    stem = found[0]
    assert (stem.layer, stem.in_channels, stem.out_channels, stem.stride) == ("0.weight", 3, 8, 2)
    assert (stem.inputs, stem.outputs, stem.weights) == (3 * 256, 8 * 64, 216)


def test_attention_is_one_product_with_its_scores():
    found = operators(traced(Attention(), (10, 32)))
    product = next(o for o in found if o.kind == "product")
    assert product.macs == 4 * 10 * 10 * (8 + 8)
    assert amounts(product)["scores"] == pytest.approx(400e-6)


def test_a_shared_input_is_read_before_its_activation():
    """An activation is not fused where the value before it is used elsewhere too."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y + y.relu()

    assert [o.kind for o in operators(traced(Twice(), (3, 8, 8)))] == [
        "pointwise",
        "activation",
        "elementwise",
    ]


def test_what_parameters_alone_decide_is_not_executed():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.scale = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4, 1))

        def forward(self, x):
            return nn.functional.linear(x, self.weight * self.scale)

    found = operators(traced(Scaled(), (3,)))
    assert [(o.kind, o.layer) for o in found] == [("matrix", "weight")]


def test_concatenations_count_what_they_join():
    class Joined(nn.Module):
        def forward(self, x, y):
            return torch.cat([x, y, x], 1)

    joined = operators(traced(Joined(), (2, 4, 4), (3, 4, 4)))
    assert [o.operands for o in joined] == [3]
    assert amounts(joined[0])["joined"] == pytest.approx(3e-3)


def test_amounts_are_known_terms_and_never_negative():
    for module, shape in ((CNN, (3, 16, 16)), (Attention(), (10, 32))):
        for operator in operators(traced(module, shape)):
            assert operator.kind in KINDS
            found = amounts(operator, 8)
            assert set(found) <= set(TERMS) - {INFERENCE}
            assert all(amount >= 0 for amount in found.values())


def test_channels_cost_what_the_next_multiple_costs():
    narrow, wide = (operators(traced(nn.Conv2d(16, n, 1), (16, 8, 8)))[0] for n in (9, 16))
    assert amounts(narrow, 8)["gemm.macs"] == amounts(wide, 8)["gemm.macs"]
    assert amounts(narrow, 1)["gemm.macs"] < amounts(wide, 1)["gemm.macs"]
    assert [rounded(n, 8) for n in (1, 8, 9)] == [8, 8, 16]
