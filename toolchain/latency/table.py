"""Layer timings measured on a target over a grid of widths, and interpolated between them.

A layer's time depends on its widths in steps: kernels work on 8, 16 or 32 channels at a time, and one channel
less may cost the same. So grid widths are whole blocks, where times are returned exactly as measured, and one
block of each axis is timed finely: between grid widths time rises as it did there. Timings belong to layer
*shapes*, so that networks share them.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from toolchain.values import Layer, Precision

PERIOD: Final = 32
"""Channels after which the kernels' blocks (8, 16 or 32 channels) begin anew."""

Steps = tuple[tuple[int, float, float], ...]
"""(channels, share, slowness) after multiples of `PERIOD`: how far time has risen on the way to the next one.

`slowness` is above 1 where no whole block is left over and the kernel takes a slow path: by how much it is
slower than a straight line between the multiples.
"""


class Sizes(NamedTuple):
    """Input channels, output channels and groups of a layer."""

    inputs: int
    outputs: int
    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The input and output widths at which a layer is timed; one width each where nothing can be pruned."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Kernel milliseconds of the layers of one network on one target, runtime and precision.

    `axes[node]` and `points[shape]` are what was measured; a layer that could not be timed alone has no axes.
    `steps[shape]` says how time rises along inputs and outputs between grid widths.
    """

    runtime: str
    precision: Precision
    threads: int
    axes: Mapping[str, Axes]
    points: Mapping[str, Mapping[tuple[int, int], float]]
    steps: Mapping[str, tuple[Steps, Steps]] = field(default_factory=dict)
    _known: dict[tuple[str, Sizes], float] = field(default_factory=dict, compare=False, repr=False)

    def has(self, layer: Layer) -> bool:
        """Whether the layer was timed."""
        return layer.node in self.axes

    def layer_ms(self, layer: Layer, inputs: int, outputs: int, groups: int = 1) -> float:
        """Kernel milliseconds of `layer` with these widths; 0 for a layer that could not be timed.

        Exact at grid points, bilinear between them in widths that follow the kernels' blocks, the smallest
        grid width below the grid (a kernel has a floor), in proportion to the widths above it. A depthwise
        layer depends on its one width. Groups removed as a whole scale the time of the layer that has them
        all.
        """
        key = (layer.node, Sizes(inputs, outputs, groups))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._interpolated(layer, key[1])
        return known

    def _interpolated(self, layer: Layer, sizes: Sizes) -> float:
        axes = self.axes.get(layer.node)
        if axes is None or sizes.inputs == 0 or sizes.outputs == 0:
            return 0.0
        inputs, outputs = float(sizes.inputs), float(sizes.outputs)
        scale = 1.0
        if is_depthwise(layer):
            outputs = inputs * layer.out_channels / layer.in_channels
        elif sizes.groups != layer.groups:
            scale = sizes.groups / layer.groups
            inputs, outputs = inputs / scale, outputs / scale
        points = self.points[shape_key(layer)]
        into, out = self.steps.get(shape_key(layer), ((), ()))
        total = 0.0
        if is_depthwise(layer):
            ratio = layer.out_channels // layer.in_channels
            for width, weight in _around(axes.inputs, inputs, into):
                total += weight * points[(width, width * ratio)]
            return total * scale
        for width_in, weight_in in _around(axes.inputs, inputs, into):
            for width_out, weight_out in _around(axes.outputs, outputs, out):
                total += weight_in * weight_out * points[(width_in, width_out)]
        return total * scale


@dataclass(frozen=True, kw_only=True)
class MixedTable:
    """Timings of a network some of whose layers, named `in_float` by their weights, are not quantized."""

    quantized: LatencyTable
    plain: LatencyTable
    in_float: frozenset[str]

    def layer_ms(self, layer: Layer, inputs: int, outputs: int, groups: int = 1) -> float:
        """As the table of the layer's precision says; see `LatencyTable`."""
        table = self.plain if layer.weight in self.in_float else self.quantized
        return table.layer_ms(layer, inputs, outputs, groups)


def is_depthwise(layer: Layer) -> bool:
    """One filter (or a few) for each input channel; a one-channel convolution is not depthwise."""
    return layer.groups > 1 and layer.groups == layer.in_channels


def grid(full: int, align: int) -> tuple[int, ...]:
    """Ascending widths at which to time an axis of `full` channels.

    Up to `PERIOD` every fourth and the smallest (kernels change their ways there); from there 2, 3, 4, 6, 8,
    12 ... times half of it: whole blocks of channels at like relative distances. Widths too small for the
    alignment step by half of it, as the planner's do.
    """
    step = max(1, align)
    while step > 1 and full < 2 * step:
        step //= 2
    half = PERIOD // 2
    small = {step, 2 * step, *range(4, PERIOD + 1, 4)}
    large = {half * rise << k for k in range(max(full // half, 1).bit_length() + 1) for rise in (1, 3)}
    found = {width for width in small | large if width % step == 0 and step <= width < full}
    return (*sorted(found), full)


def shape_key(layer: Layer) -> str:
    """What a layer's time depends on besides its widths, as a readable name."""
    parts = [layer.kind + ("T" if layer.transposed else "")]
    for name, sizes in (
        ("k", layer.kernel),
        ("s", layer.stride),
        ("p", layer.padding),
        ("d", layer.dilation),
        ("at", layer.input_size),
    ):
        if sizes:
            parts.append(name + "x".join(map(str, sizes)))
    if layer.kind == "linear":
        parts.append(f"rows{layer.tokens}")
    if is_depthwise(layer):
        parts.append(f"depthwise{layer.out_channels // layer.in_channels}")
    elif layer.groups > 1:
        parts.append(f"groups{layer.groups}")
    if not layer.bias:
        parts.append("nobias")
    return "-".join(parts)


def at_widths(layer: Layer, widths: tuple[int, int]) -> Layer:
    """A layer of the same shape with other widths."""
    inputs, outputs = widths
    groups = inputs if is_depthwise(layer) else layer.groups
    return replace(layer, in_channels=inputs, out_channels=outputs, groups=groups)


def _around(axis: Sequence[int], width: float, steps: Steps) -> tuple[tuple[int, float], ...]:
    """Grid widths and their weights; weights sum to more than one above the grid and on slow paths."""
    if width <= axis[0]:
        return ((axis[0], 1.0),)
    if width >= axis[-1]:
        return ((axis[-1], width / axis[-1]),)
    high = bisect.bisect_left(axis, width)
    if axis[high] == width:
        return ((axis[high], 1.0),)
    low, between, top = (_effective(w, steps) for w in (axis[high - 1], width, axis[high]))
    if top <= low:
        low, between, top = axis[high - 1], width, axis[high]
    share = min(max((between - low) / (top - low), 0.0), 1.0)
    slow, slow_low, slow_high = (_slowness(w, steps) for w in (width, axis[high - 1], axis[high]))
    return (
        (axis[high - 1], (1.0 - share) * slow / slow_low),
        (axis[high], share * slow / slow_high),
    )


def _effective(width: float, steps: Steps) -> float:
    """The width in which time is linear within a block of `PERIOD` channels."""
    blocks, rest = divmod(width, PERIOD)
    if not steps or not rest:
        return width
    low = max((known[:2] for known in steps if known[0] <= rest), default=(0, 0.0))
    high = min((known[:2] for known in steps if known[0] >= rest), default=(PERIOD, 1.0))
    share = low[1]
    if high[0] > low[0]:
        share += (high[1] - low[1]) * (rest - low[0]) / (high[0] - low[0])
    return (blocks + share) * PERIOD


def _slowness(width: float, steps: Steps) -> float:
    """That of the nearest width that was timed in the block."""
    rest = width % PERIOD
    return min(steps, key=lambda known: abs(known[0] - rest))[2] if steps and rest else 1.0
