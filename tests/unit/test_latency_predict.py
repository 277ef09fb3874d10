"""The latency model: calibrated by the original, a sum of its layers, of calls and of what moves."""

from dataclasses import replace

import pytest

from toolchain.errors import InputError
from toolchain.latency.predict import CALL_MS, LatencyModel, calibrated, original, sizes, volume
from toolchain.latency.table import Axes, LatencyTable, Sizes, is_depthwise, shape_key
from toolchain.values import Layer

CONVOLUTION = Layer(
    node="conv",
    kind="conv",
    weight="conv.weight",
    in_channels=16,
    out_channels=32,
    kernel=(3, 3),
    stride=(1, 1),
    padding=(1, 1),
    dilation=(1, 1),
    input_size=(8, 8),
    output_size=(8, 8),
)
DEPTHWISE = replace(CONVOLUTION, node="dw", in_channels=32, out_channels=32, groups=32)
LINEAR = Layer(node="fc", kind="linear", weight="fc.weight", in_channels=32, out_channels=10)
LAYERS = (CONVOLUTION, DEPTHWISE, LINEAR)


def table() -> LatencyTable:
    """1 us a channel product at every even width."""
    axes = {
        layer.node: Axes(
            inputs=tuple(range(2, layer.in_channels + 1, 2)),
            outputs=tuple(range(2, layer.out_channels + 1, 2)),
        )
        for layer in LAYERS
    }
    points = {
        shape_key(layer): {
            (i, o): i * o / (i if is_depthwise(layer) else 1) / 1000
            for i in axes[layer.node].inputs
            for o in axes[layer.node].outputs
        }
        for layer in LAYERS
    }
    return LatencyTable(runtime="formula", precision="fp32", threads=1, axes=axes, points=points)


def kernels_ms(model: LatencyModel) -> float:
    return sum(model.layer_ms(layer, original(layer)) for layer in LAYERS)


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("measured_ms", [2.0, 0.866, 0.5])
def test_the_original_is_predicted_as_measured(measured_ms: float, moves: bool) -> None:
    """Whether its layers explain less than all of it, nearly all, or more than all."""
    model = calibrated(table(), LAYERS, measured_ms, moves=moves)
    assert kernels_ms(model) + model.rest_ms() + model.moved_ms() == pytest.approx(measured_ms)
    assert model.moved_ms() >= 0
    assert model.rest_ms() >= 0


def test_the_rest_is_calls_and_then_what_moves() -> None:
    model = calibrated(table(), LAYERS, 2.0)
    assert model.rest_ms() == pytest.approx(CALL_MS * len(LAYERS))
    assert calibrated(table(), LAYERS, 2.0, moves=False).moved_ms() == 0
    hardly_more = calibrated(table(), LAYERS, kernels_ms(model) + CALL_MS)
    assert hardly_more.rest_ms() == pytest.approx(CALL_MS)
    assert hardly_more.moved_ms() == pytest.approx(0)


def test_layers_that_sum_to_more_than_the_whole_are_scaled_to_it() -> None:
    model = calibrated(table(), LAYERS, 0.1)
    assert kernels_ms(model) == pytest.approx(0.1)
    assert model.rest_ms() == model.moved_ms() == 0


@pytest.mark.parametrize("measured_ms", [0.0, -1.0, float("nan")])
def test_what_is_no_time_is_refused(measured_ms: float) -> None:
    with pytest.raises(InputError):
        calibrated(table(), LAYERS, measured_ms)


def test_sizes_from_parameter_dimensions() -> None:
    shapes = {
        ("conv.weight", 0): 20,
        ("conv.weight", 1): 12,
        ("fc.weight", 0): 10,
        ("fc.weight", 1): 24,
    }
    of = lambda parameter, dim: shapes[parameter, dim]  # noqa: E731
    assert sizes(CONVOLUTION, of) == Sizes(12, 20, 1)
    assert sizes(LINEAR, of) == Sizes(24, 10, 1)
    assert sizes(replace(CONVOLUTION, groups=2), of) == Sizes(24, 20, 2)
    assert sizes(replace(CONVOLUTION, transposed=True), of) == Sizes(20, 12, 1)
    assert sizes(replace(DEPTHWISE, out_channels=64), of) == Sizes(10, 20, 10)


def test_volume_counts_output_elements() -> None:
    assert volume(CONVOLUTION, Sizes(16, 8)) == 8 * 64
    assert volume(replace(LINEAR, tokens=7), Sizes(32, 10)) == 70
