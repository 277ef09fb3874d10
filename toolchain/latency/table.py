"""Layer timings measured on a target over a grid of widths, and interpolated between them.

A layer's time depends on its widths in steps (kernels work on 8, 16 or 32 channels at a time; one channel
less may cost the same or even more), so the grid holds the widths that the planner may choose, and values at
grid points are returned exactly as measured. Timings are kept per layer *shape*, so that networks share them.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from toolchain.contracts import Device, Progress, Runtime
from toolchain.latency.timings import Points, Timings, timings
from toolchain.values import Layer, Precision

Clock = Callable[[Sequence[Layer]], tuple[float | None, ...]]
"""Times layers, in their order."""
POINTS: Final = 16
# Shorter layers are timed too coarsely to tell a drift of the clock; more than DRIFT is no drift.
RESOLUTION_MS: Final = 0.002
DRIFT: Final = 1.5


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
    """

    runtime: str
    precision: Precision
    threads: int
    axes: Mapping[str, Axes]
    points: Mapping[str, Mapping[tuple[int, int], float]]
    _known: dict[tuple[str, Sizes], float] = field(default_factory=dict, compare=False, repr=False)

    def has(self, layer: Layer) -> bool:
        """Whether the layer was timed."""
        return layer.node in self.axes

    def layer_ms(self, layer: Layer, inputs: int, outputs: int, groups: int = 1) -> float:
        """Kernel milliseconds of `layer` with these widths; 0 for a layer that could not be timed.

        Exact at grid points, bilinear between them, the smallest grid width below the grid (a kernel has a
        floor), in proportion to the widths above it. A depthwise layer depends on its one width. Groups
        removed as a whole scale the time of the layer that has them all.
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
        total = 0.0
        if is_depthwise(layer):
            ratio = layer.out_channels // layer.in_channels
            for width, weight in _around(axes.inputs, inputs):
                total += weight * points[(width, width * ratio)]
            return total * scale
        for width_in, weight_in in _around(axes.inputs, inputs):
            for width_out, weight_out in _around(axes.outputs, outputs):
                total += weight_in * weight_out * points[(width_in, width_out)]
        return total * scale


def is_depthwise(layer: Layer) -> bool:
    """One filter (or a few) for each input channel; a one-channel convolution is not depthwise."""
    return layer.groups > 1 and layer.groups == layer.in_channels


def grid(full: int, align: int, points: int = POINTS) -> tuple[int, ...]:
    """Ascending widths at which to time an axis of `full` channels: multiples of `align`, and `full`.

    All multiples where they are at most `points`. Else those up to four steps, then 2, 3, 4, 6, 8, 12 ...
    times four steps: kernels take channels in blocks, and the relative distance stays alike. Widths too
    small for the alignment step by half of it, as the planner's do.
    """
    step = max(1, align)
    while step > 1 and full < 2 * step:
        step //= 2
    multiples = list(range(step, full, step))
    if len(multiples) >= points:
        block = 4 * step
        doublings = range(math.ceil(math.log2(full / block)) + 1)
        coarse = {block * rise << k for k in doublings for rise in (1, 3)} | {2 * block}
        multiples = sorted({step, 2 * step, 3 * step} | coarse)
    return (*(width for width in multiples if width < full), full)


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


def build_table(
    device: Device,
    runtime: Runtime,
    precision: Precision,
    layers: Sequence[Layer],
    grids: Mapping[str, Axes],
    *,
    threads: int,
    cache: Path,
    progress: Progress,
) -> LatencyTable:
    """Times every layer shape over its grid on `device`; what `cache` has already is not timed again.

    The clock of a shared machine drifts by more than the timings differ. So a shape that is known in part is
    timed together with one of its known points, and what is new scaled by that to the clock of the known
    ones; and at the end one layer of every shape is timed again, all within a moment, and each shape's
    points are scaled to that moment.

    Args:
        device: where to time; asked for `probe`.
        runtime: the engine.
        precision: fp32 or int8.
        layers: all layers of the network; equal shapes are timed once.
        grids: axes by `Layer.node`; a layer not named is timed at its own widths only.
        threads: of the runtime.
        cache: the user's cache folder; timings of other conditions in it are not used.
        progress: told of every finished shape.

    Raises:
        DeviceError: the device failed; shapes finished before are kept in the cache.
        InputError: the cache folder cannot be written.
    """
    kept = timings(cache, device.conditions(runtime, threads), precision)
    axes = {layer.node: _fitting(layer, grids.get(layer.node)) for layer in layers}
    samples: dict[str, dict[tuple[int, int], Layer]] = {}
    for layer in layers:
        samples.setdefault(shape_key(layer), {}).update(_variants(layer, axes[layer.node]))
    clock = partial(device.probe, runtime, precision, threads=threads, progress=progress)
    points: dict[str, dict[tuple[int, int], float]] = {}
    for number, (key, wanted) in enumerate(samples.items()):
        with kept.alone():
            found = _completed(kept, key, wanted, clock)
        if found is not None:
            points[key] = found
            progress.step(number + 1, len(samples), f"{runtime.name} {precision} {key}")
    timed = {layer.node: axes[layer.node] for layer in layers if shape_key(layer) in points}
    current = _at_todays_clock(layers, points, clock)
    return LatencyTable(
        runtime=runtime.name, precision=precision, threads=threads, axes=timed, points=current
    )


def _completed(
    kept: Timings, key: str, wanted: Mapping[tuple[int, int], Layer], clock: Clock
) -> Points | None:
    """All points of a shape, the missing ones timed and kept; None where one cannot be timed alone."""
    known = kept.known(key)
    missing = {widths: layer for widths, layer in wanted.items() if widths not in known}
    if not missing:
        return known
    anchor = max(known, key=lambda w: w[0] * w[1], default=None)
    again = [] if anchor is None else [_at_widths(next(iter(wanted.values())), anchor)]
    times = clock([*again, *missing.values()])
    if any(ms is None for ms in times):
        return None
    found = [ms for ms in times if ms is not None]
    factor = 1.0
    if anchor is not None:
        factor = _drift(then=found.pop(0), now=known[anchor])
    known.update((widths, ms * factor) for widths, ms in zip(missing, found, strict=True))
    kept.keep(key, known)
    return known


def _at_todays_clock(
    layers: Sequence[Layer], points: Mapping[str, Points], clock: Clock
) -> dict[str, Mapping[tuple[int, int], float]]:
    """The points, each shape scaled by what its largest layer takes now over what it took then."""
    anchors: dict[str, Layer] = {}
    for layer in sorted(layers, key=lambda a: a.in_channels * a.out_channels):
        if shape_key(layer) in points:
            anchors[shape_key(layer)] = layer
    scaled: dict[str, Mapping[tuple[int, int], float]] = dict(points)
    for (key, layer), now in zip(anchors.items(), clock(list(anchors.values())), strict=True):
        if now is not None:
            factor = _drift(then=points[key][(layer.in_channels, layer.out_channels)], now=now)
            scaled[key] = {widths: ms * factor for widths, ms in points[key].items()}
    return scaled


def _drift(*, then: float, now: float) -> float:
    """How much slower the clock is now; 1 where the times are too short to tell."""
    if then < RESOLUTION_MS or now < RESOLUTION_MS:
        return 1.0
    return min(max(now / then, 1 / DRIFT), DRIFT)


def _at_widths(layer: Layer, widths: tuple[int, int]) -> Layer:
    """A layer of the same shape with other widths."""
    inputs, outputs = widths
    groups = inputs if is_depthwise(layer) else layer.groups
    return replace(layer, in_channels=inputs, out_channels=outputs, groups=groups)


def _fitting(layer: Layer, axes: Axes | None) -> Axes:
    """The layer's axes, each with the layer's own width, in steps that its groups allow."""
    found = axes or Axes(inputs=(layer.in_channels,), outputs=(layer.out_channels,))
    step = 1 if is_depthwise(layer) else layer.groups
    return Axes(
        inputs=_stepped(found.inputs, layer.in_channels, step),
        outputs=_stepped(found.outputs, layer.out_channels, step),
    )


def _stepped(widths: Iterable[int], full: int, step: int) -> tuple[int, ...]:
    return tuple(sorted({max(step, width // step * step) for width in widths} | {full}))


def _variants(layer: Layer, axes: Axes) -> dict[tuple[int, int], Layer]:
    """The layer at every grid point, by (inputs, outputs)."""
    if is_depthwise(layer):
        ratio = layer.out_channels // layer.in_channels
        pairs = [(width, width * ratio) for width in axes.inputs]
    else:
        pairs = [(inputs, outputs) for inputs in axes.inputs for outputs in axes.outputs]
    return {widths: _at_widths(layer, widths) for widths in pairs}


def _around(axis: Sequence[int], width: float) -> tuple[tuple[int, float], ...]:
    """Grid widths and their weights; weights sum to more than one only above the grid."""
    if width <= axis[0]:
        return ((axis[0], 1.0),)
    if width >= axis[-1]:
        return ((axis[-1], width / axis[-1]),)
    high = bisect.bisect_left(axis, width)
    if axis[high] == width:
        return ((axis[high], 1.0),)
    share = (width - axis[high - 1]) / (axis[high] - axis[high - 1])
    return ((axis[high - 1], 1.0 - share), (axis[high], share))
