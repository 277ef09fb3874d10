"""The latency model: calibrated by the original, corrected by a measurement, a sum of its layers."""

from dataclasses import replace

import pytest

from toolchain.errors import InputError
from toolchain.latency.predict import LatencyModel, calibrated, original, sizes, volume
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
HALF = {"conv": Sizes(16, 16), "dw": Sizes(16, 16, 16), "fc": Sizes(16, 10)}


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


@pytest.fixture
def model() -> LatencyModel:
    return calibrated(table(), LAYERS, 2.0)


def test_the_original_is_predicted_as_measured(model: LatencyModel) -> None:
    assert model.predict(original).ms == pytest.approx(2.0)


def test_the_rest_shrinks_with_the_activation_volume_but_not_all_of_it(model: LatencyModel) -> None:
    kernels_ms = (16 * 16 + 16 + 16 * 10) / 1000
    rest_ms = 2.0 - (16 * 32 + 32 + 32 * 10) / 1000
    estimate = model.predict(HALF)
    assert kernels_ms + rest_ms / 4 < estimate.ms < kernels_ms + rest_ms


def test_a_prediction_is_the_sum_of_its_layers_and_the_rest(model: LatencyModel) -> None:
    parts = sum(model.layer_ms(layer, HALF[layer.node]) for layer in LAYERS)
    assert model.predict(HALF).ms == pytest.approx(model.rest_ms() + parts)


def test_functions_and_mappings_of_widths_are_alike(model: LatencyModel) -> None:
    assert model.predict(lambda layer: HALF[layer.node]) == model.predict(HALF)


def test_a_correction_is_exact_where_it_was_measured_and_scales_elsewhere(model: LatencyModel) -> None:
    before = model.predict(original).ms
    corrected = model.corrected(HALF, 1.5)
    assert corrected.predict(HALF).ms == pytest.approx(1.5)
    factor = 1.5 / model.predict(HALF).ms
    assert corrected.predict(original).ms == pytest.approx(before * factor)
    assert "2 measurements" in corrected.predict(HALF).source
    assert model.predict(original).ms == before


def test_layers_that_sum_to_more_than_the_whole_are_scaled_to_it() -> None:
    model = calibrated(table(), LAYERS, 0.1)
    assert model.predict(original).ms == pytest.approx(0.1)
    assert 0 < model.predict(HALF).ms < 0.1


@pytest.mark.parametrize("measured_ms", [0.0, -1.0, float("nan")])
def test_what_is_no_time_is_refused(model: LatencyModel, measured_ms: float) -> None:
    with pytest.raises(InputError):
        model.corrected(HALF, measured_ms)
    with pytest.raises(InputError):
        calibrated(model.table, LAYERS, measured_ms)


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
