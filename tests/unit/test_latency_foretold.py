"""Layers under a calibrated model: resized operators are those of the narrower network; sums agree."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from toolchain import registry
from toolchain.latency.calibrated import predict, read
from toolchain.latency.foretold import foretold, resized
from toolchain.latency.operators import operators
from toolchain.latency.predict import original
from toolchain.latency.table import Sizes
from toolchain.program.capture import capture
from toolchain.program.cost import layers

MODEL = replace(read(registry.find("targets", "TARGET", "traffic-camera").calibration).models[0], align=1)


def program(module, *shape):
    return capture(module.eval(), (torch.randn(2, *shape),), name="net")


def network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.Hardswish(),
        nn.Conv2d(width, width, 3, 1, 1, groups=width),
        nn.ReLU(),
        nn.Conv2d(width, 24, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


@pytest.mark.parametrize(
    ("wide", "narrow", "sizes"),
    [
        (nn.Conv2d(16, 24, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1), Sizes(8, 12, 1)),
        (nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(6, 6, 3, groups=6), Sizes(6, 6, 6)),
        (nn.Conv2d(16, 32, 3, groups=4), nn.Conv2d(8, 16, 3, groups=4), Sizes(8, 16, 4)),
        (nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(4, 6, 2, 2), Sizes(4, 6, 1)),
        (nn.Linear(16, 40), nn.Linear(12, 20), Sizes(12, 20, 1)),
    ],
)
def test_resized_operators_are_those_of_the_narrower_layer(wide, narrow, sizes):
    one = (16,) if isinstance(wide, nn.Linear) else (16, 10, 10)
    other = (sizes.inputs, *one[1:])
    found = resized(operators(program(wide, *one))[0], sizes)
    assert found == operators(program(narrow, *other))[0]


def test_layers_sum_to_the_prediction_of_the_original():
    made = program(network(32), 3, 32, 32)
    model = foretold(MODEL, operators(made), layers(made))
    total = model.rest_ms() + sum(model.layer_ms(one, original(one)) for one in layers(made))
    assert total == pytest.approx(predict(MODEL, operators(made)).estimate.ms)


def test_narrower_layers_predict_the_narrower_network():
    """All but what is shared by volume is exact; here that is small."""
    whole, half = (program(network(width), 3, 32, 32) for width in (32, 16))
    model = foretold(MODEL, operators(whole), layers(whole))
    by_index = dict(zip(layers(whole), layers(half), strict=True))
    total = model.rest_ms() + sum(model.layer_ms(one, original(to)) for one, to in by_index.items())
    assert total == pytest.approx(predict(MODEL, operators(half)).estimate.ms, rel=0.1)
