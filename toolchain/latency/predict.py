"""The latency of a network that does not exist yet, from layer timings and one measurement of the original.

    ms(w) = factor * (sum of layer_ms(w) + fixed + moving * volume(w) / volume(original))

`fixed + moving` is what the layers do not explain in the original's measured time: calls, and operators that
only move or add activations. Their share that shrinks with the activation volume is `MOVING_SHARE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from toolchain.errors import InputError
from toolchain.latency.table import LatencyTable, Sizes, is_depthwise
from toolchain.values import Estimate, Layer

MOVING_SHARE: Final = 0.6
Widths = Callable[[Layer], Sizes] | Mapping[str, Sizes]


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Predicts the milliseconds of a pruned network; see the module for the formula.

    `factor` is 1 until a measurement of a pruned network corrects it; `volume` is the original's.
    """

    table: LatencyTable
    layers: tuple[Layer, ...]
    fixed_ms: float
    moving_ms: float
    volume: float
    factor: float = 1.0
    measurements: int = 1

    def layer_ms(self, layer: Layer, sizes: Sizes) -> float:
        """The layer's share of the prediction: its kernel and its part of the moving rest."""
        kernel = self.table.layer_ms(layer, *sizes)
        moving = self.moving_ms * volume(layer, sizes) / self.volume if self.volume else 0.0
        return self.factor * (kernel + moving)

    def rest_ms(self) -> float:
        """The share of the prediction that no width changes."""
        return self.factor * self.fixed_ms

    def predict(self, widths: Widths) -> Estimate:
        """The latency with these widths, as a function of a layer or by `Layer.node`."""
        of = widths if callable(widths) else lambda layer: widths[layer.node]
        total = self.rest_ms() + sum(self.layer_ms(layer, of(layer)) for layer in self.layers)
        times = "measurement" if self.measurements == 1 else f"{self.measurements} measurements"
        return Estimate(
            ms=total,
            source=f"{self.table.runtime} {self.table.precision} layer timings, calibrated by {times}",
        )

    def corrected(self, widths: Widths, measured_ms: float) -> LatencyModel:
        """This model, scaled so that it gives `measured_ms` at `widths`: exact there, better nearby.

        Raises:
            InputError: `measured_ms` is not positive.
        """
        if not measured_ms > 0:
            raise InputError(f"a measured latency of {measured_ms} ms cannot correct a prediction")
        predicted = self.predict(widths).ms
        return replace(self, factor=self.factor * measured_ms / predicted, measurements=self.measurements + 1)


def calibrated(table: LatencyTable, layers: Sequence[Layer], measured_ms: float) -> LatencyModel:
    """The model that gives `measured_ms` for the original widths of `layers`.

    Where the layers timed alone sum to more than the measured whole, they are scaled down to it.

    Raises:
        InputError: `measured_ms` is not positive.
    """
    if not measured_ms > 0:
        raise InputError(f"a measured latency of {measured_ms} ms cannot calibrate a prediction")
    kernels = sum(table.layer_ms(layer, *original(layer)) for layer in layers)
    rest = max(measured_ms - kernels, 0.0)
    return LatencyModel(
        table=table,
        layers=tuple(layers),
        fixed_ms=rest * (1 - MOVING_SHARE),
        moving_ms=rest * MOVING_SHARE,
        volume=sum(volume(layer, original(layer)) for layer in layers),
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
