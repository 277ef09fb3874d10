"""The latency of a network that does not exist yet, from layer timings and one measurement of the original.

    ms = factor * (sum of layer_ms + calls + moving * volume / volume of the original)

`calls + moving` is what the layers do not explain in the original's measured time: `CALL_MS` for every layer,
the rest for operators that move, add or pass on activations, in proportion to what they read and write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from toolchain.errors import InputError
from toolchain.latency.table import LatencyTable, Sizes, is_depthwise
from toolchain.values import Layer

CALL_MS: Final = 0.005
"""What calling a kernel costs besides its time on a CPU (measured: 4-6 us in ONNX Runtime and LiteRT)."""


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Predicts the milliseconds of a pruned network; see the module for the formula.

    `factor` is 1 until a measurement of a pruned network corrects it.
    """

    table: LatencyTable
    calls_ms: float
    moving_ms: float
    factor: float = 1.0
    measurements: int = 1

    def layer_ms(self, layer: Layer, sizes: Sizes) -> float:
        """The layer's kernel."""
        return self.factor * self.table.layer_ms(layer, *sizes)

    def rest_ms(self) -> float:
        """The share of the prediction that no width changes."""
        return self.factor * self.calls_ms

    def moved_ms(self) -> float:
        """The share of the original's prediction that goes with the volume of moved activations."""
        return self.factor * self.moving_ms


def calibrated(
    table: LatencyTable, layers: Sequence[Layer], measured_ms: float, *, moves: bool = True
) -> LatencyModel:
    """The model that gives `measured_ms` for the original widths of `layers`.

    Where the layers timed alone sum to more than the measured whole, they are scaled down to it. Without
    `moves` (no operators besides the layers) the rest is calls alone.

    Raises:
        InputError: `measured_ms` is not positive.
    """
    if not measured_ms > 0:
        raise InputError(f"a measured latency of {measured_ms} ms cannot calibrate a prediction")
    kernels = sum(table.layer_ms(layer, *original(layer)) for layer in layers)
    rest = max(measured_ms - kernels, 0.0)
    calls = min(rest, CALL_MS * len(layers)) if moves else rest
    return LatencyModel(
        table=table,
        calls_ms=calls,
        moving_ms=rest - calls,
        factor=1.0 if rest > 0 or kernels == 0 else measured_ms / kernels,
    )


def original(layer: Layer) -> Sizes:
    """The layer's own widths."""
    return Sizes(layer.in_channels, layer.out_channels, layer.groups)


def sizes(layer: Layer, of: Callable[[str, int], int]) -> Sizes:
    """The layer's widths where `of(parameter, dim)` gives the sizes of parameter dimensions.

    The number of groups stays, except in depthwise layers, where it is the width.
    """
    if is_depthwise(layer):
        outputs = of(layer.weight, 0)
        width = outputs * layer.in_channels // layer.out_channels
        return Sizes(width, outputs, width)
    first, second = of(layer.weight, 0), of(layer.weight, 1)
    if layer.transposed:
        return Sizes(first, second * layer.groups, layer.groups)
    return Sizes(second * layer.groups, first, layer.groups)


def volume(layer: Layer, widths: Sizes) -> float:
    """Elements of the layer's output, one sample."""
    spatial = 1
    for side in layer.output_size:
        spatial *= side
    return float(widths.outputs * spatial * (layer.tokens if layer.kind == "linear" else 1))
