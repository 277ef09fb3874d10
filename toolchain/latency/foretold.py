"""A calibrated model as the planner needs it: milliseconds of single layers at any widths.

What no layer does itself (activations, sums, pools) is shared among the layers by the volume of their
outputs, so that it shrinks with them; the exact prediction of what was planned corrects the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from toolchain.latency.calibrated import Calibration, operator_ms
from toolchain.latency.operators import Operator
from toolchain.latency.predict import original, volume
from toolchain.latency.table import Sizes
from toolchain.latency.terms import INFERENCE
from toolchain.values import Layer


@dataclass(frozen=True, kw_only=True)
class ForetoldLayers:
    """Layers of one network under a calibrated model; `operators` by the weight that they read.

    `moving_ms` is what the other operators take in the original, `volume` the outputs of its layers.
    """

    calibration: Calibration
    operators: Mapping[str, Operator]
    moving_ms: float
    volume: float
    factor: float = 1.0
    measurements: int = 0

    def layer_ms(self, layer: Layer, sizes: Sizes) -> float:
        """The layer's kernel at these widths and its share of what moves."""
        operator = self.operators.get(layer.weight)
        kernel = 0.0 if operator is None else operator_ms(self.calibration, resized(operator, sizes))
        moving = self.moving_ms * volume(layer, sizes) / self.volume if self.volume else 0.0
        return self.factor * (kernel + moving)

    def moved_ms(self) -> float:
        """Nothing: every layer has its share of what moves."""
        return 0.0

    def rest_ms(self) -> float:
        """The overhead of an inference."""
        return self.factor * self.calibration.ms_per.get(INFERENCE, 0.0)


def foretold(
    calibration: Calibration, operators: Iterable[Operator], layers: Sequence[Layer]
) -> ForetoldLayers:
    """The model for a network with these operators and layers."""
    weights = {layer.weight for layer in layers}
    own: dict[str, Operator] = {}
    moving = 0.0
    for operator in operators:
        if operator.layer in weights:
            own[operator.layer] = operator
        else:
            moving += operator_ms(calibration, operator)
    return ForetoldLayers(
        calibration=calibration,
        operators=own,
        moving_ms=moving,
        volume=sum(volume(layer, original(layer)) for layer in layers),
    )


def resized(operator: Operator, sizes: Sizes) -> Operator:
    """The operator with other widths; arithmetic and traffic follow."""
    inputs, outputs = sizes.inputs / operator.in_channels, sizes.outputs / operator.out_channels
    groups = max(sizes.groups, 1) / operator.groups
    weights = inputs * outputs / groups
    return replace(
        operator,
        macs=round(operator.macs * weights),
        weights=round(operator.weights * weights),
        inputs=round(operator.inputs * inputs),
        outputs=round(operator.outputs * outputs),
        in_channels=int(sizes.inputs),
        out_channels=int(sizes.outputs),
        groups=int(max(sizes.groups, 1)),
    )
