"""How much int8 hurts a layer: rounding as the runtimes do it, and the order that comes of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.contracts import Silent
from toolchain.errors import ConversionError
from toolchain.program.capture import capture
from toolchain.same_weights import operators_of
from toolchain.sensitivity import _measured, per_channel, per_tensor


def test_weights_are_rounded_as_torch_does_it():
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    for dim in (0, 1):
        step = weight.abs().transpose(0, dim).flatten(1).amax(1) / 127
        zeros = torch.zeros(weight.shape[dim], dtype=torch.int32)
        wanted = torch.fake_quantize_per_channel_affine(weight, step, zeros, dim, -127, 127)
        assert torch.allclose(per_channel(weight, dim), wanted, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 2.0, -5.0])
def test_activations_are_rounded_as_torch_does_it(shift):
    value = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)) + shift
    low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
    step = (high - low) / 255
    wanted = torch.fake_quantize_per_tensor_affine(value, step, round(-low / step), 0, 255)
    assert torch.allclose(per_tensor(value), wanted, atol=1e-5)


def test_zeros_stay_zeros():
    assert torch.equal(per_tensor(torch.zeros(3)), torch.zeros(3))
    assert torch.equal(per_channel(torch.zeros(2, 3), 0), torch.zeros(2, 3))


class _Attention(nn.Module):
    """A matrix product beside layers, and a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.mix = nn.Parameter(torch.randn(4, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.up(torch.relu(self.conv(x)))).mean((2, 3))
        return self.head(torch.relu(x @ self.mix))


def ranking(network, seed=0):
    """Nats by weight of `network` on random images without red."""
    x = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    x[:, 0] = 0
    program = capture(network.eval(), (x[:2],), name="n")
    data = SimpleNamespace(calibration=lambda count: ((x[:count],), torch.zeros(count, dtype=torch.int64)))
    return _measured(SimpleNamespace(program=program, data=data, progress=Silent()))


def test_every_kind_of_layer_is_ranked():
    torch.manual_seed(0)
    found = ranking(_Attention())
    assert set(found) == {"conv.weight", "up.weight", "mix", "head.weight"}
    assert all(-1e-6 < nats < 0.1 for nats in found.values())  # sums in float32


@pytest.mark.parametrize("planted", ["conv.weight", "up.weight", "mix", "head.weight"])
def test_a_layer_with_an_outlier_comes_first(planted):
    """One weight of each output channel so large that nothing is left of the others, on an input of zero."""
    torch.manual_seed(0)
    network = _Attention()
    weight = dict(network.named_parameters())[planted]
    with torch.no_grad():
        if planted == "conv.weight":
            weight[:, 0] = 1e4
        elif planted == "up.weight":
            network.conv.weight[0], network.conv.bias[0] = 0.0, 0.0
            weight[0] = 1e4
        elif planted == "mix":
            network.up.weight[:, 0], network.up.bias[0] = 0.0, 0.0
            weight[0] = 1e4
        else:
            network.mix[:, 0] = 0.0
            weight[:, 0] = 1e4
    found = ranking(network)
    assert max(found, key=found.get) == planted


def test_layers_are_known_by_their_numbers_whatever_their_axes():
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(4, 3, 2, 2)).astype(np.float32) for name in ("a", "b", "c")}
    moved = [(number, weight.transpose(0, 2, 3, 1)) for number, weight in enumerate(weights.values())]
    assert operators_of({"c": weights["c"], "a": weights["a"]}, moved) == [2, 0]
    halves = [(number, weight.astype(np.float16)) for number, weight in moved]
    assert operators_of({"b": weights["b"]}, halves, kind="float16") == [1]
    with pytest.raises(ConversionError, match="layer 'b'"):
        operators_of({"b": weights["b"] * 2}, moved)
