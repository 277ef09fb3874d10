"""The latency model: a sum of its layers, of calls and of what moves, fitted to measured networks."""

from dataclasses import replace

import pytest

from toolchain.errors import InputError
from toolchain.latency.predict import CALL_MS, LatencyModel, Whole, fitted, original, sizes, volume
from toolchain.latency.table import Axes, LatencyTable, MixedTable, Sizes, is_depthwise, shape_key
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


def kernels_ms() -> float:
    return sum(table().layer_ms(layer, *original(layer)) for layer in LAYERS)


def whole(ms: float, *, kernels: float | None = None, left: float = 1.0, moved: float = 1.0) -> Whole:
    """A measured network; the original unless said otherwise."""
    return Whole(kernels_ms() if kernels is None else kernels, len(LAYERS) * left, moved, ms)


def predicted(model: LatencyModel, network: Whole) -> float:
    kernels = model.factor * model.kernel * network.kernels_ms
    return kernels + model.rest_ms() * network.layers / len(LAYERS) + model.moved_ms() * network.moved


@pytest.mark.parametrize("moved", [1.0, 0.0])
@pytest.mark.parametrize("measured_ms", [2.0, 0.866, 0.5])
def test_the_original_is_predicted_as_measured(measured_ms: float, moved: float) -> None:
    """Whether its layers explain less than all of it, nearly all, or more than all."""
    network = whole(measured_ms, moved=moved)
    model = fitted(table(), [network])
    assert predicted(model, network) == pytest.approx(measured_ms)
    assert min(model.kernel, model.rest_ms(), model.moved_ms()) >= 0


def test_of_one_network_the_rest_is_calls_and_then_what_moves() -> None:
    model = fitted(table(), [whole(2.0)])
    assert model.kernel == pytest.approx(1)
    assert model.rest_ms() == pytest.approx(CALL_MS * len(LAYERS))
    assert fitted(table(), [whole(2.0, moved=0)]).moved_ms() == pytest.approx(0)


def test_layers_that_sum_to_more_than_the_whole_are_scaled_to_it() -> None:
    model = fitted(table(), [whole(0.1)])
    assert model.kernel * model.factor * kernels_ms() == pytest.approx(0.1)
    assert model.rest_ms() == model.moved_ms() == pytest.approx(0)


@pytest.mark.parametrize("kernel", [0.9, 1.1])
@pytest.mark.parametrize("call", [0.002, 0.01])
@pytest.mark.parametrize("moving", [0.05, 0.4])
def test_what_networks_of_other_widths_tell_is_learned(kernel: float, call: float, moving: float) -> None:
    """Three networks made by the formula, and a fourth that the fit has not seen."""

    def made(share: float, left: float, moved: float) -> Whole:
        kernels = share * kernels_ms()
        ms = kernel * kernels + call * left * len(LAYERS) + moving * moved
        return whole(ms, kernels=kernels, left=left, moved=moved)

    original_ = made(1, 1, 1)
    unseen = made(0.3, 1, 0.6)
    model = fitted(table(), [original_, made(0.1, 1, 0.3), made(0.5, 0.6, 0.8)])
    assert predicted(model, unseen) == pytest.approx(unseen.measured_ms, rel=0.01)
    alone = fitted(table(), [original_])
    errors = [abs(predicted(m, unseen) / unseen.measured_ms - 1) for m in (model, alone)]
    assert errors[0] < errors[1]


def test_the_last_network_is_predicted_as_measured() -> None:
    """Even where no formula could give both."""
    last = whole(0.9, kernels=0.1, moved=0.5)
    assert predicted(fitted(table(), [whole(1.0), last]), last) == pytest.approx(0.9)


@pytest.mark.parametrize("measured_ms", [0.0, -1.0, float("nan")])
def test_what_is_no_time_is_refused(measured_ms: float) -> None:
    with pytest.raises(InputError):
        fitted(table(), [whole(1.0), whole(measured_ms)])


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(InputError):
        fitted(table(), [])


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


def test_in_mixed_precision_every_layer_takes_what_its_own_precision_does() -> None:
    plain = table()
    faster = {key: {widths: ms / 4 for widths, ms in points.items()} for key, points in plain.points.items()}
    mixed = MixedTable(
        quantized=replace(plain, points=faster, _known={}), plain=plain, in_float=frozenset(["fc.weight"])
    )
    for layer, times in ((LINEAR, 1.0), (CONVOLUTION, 0.25)):
        assert mixed.layer_ms(layer, 8, 10) == pytest.approx(times * plain.layer_ms(layer, 8, 10))
    assert fitted(mixed, [whole(1.0)]).layer_ms(LINEAR, Sizes(8, 10)) > 0
