"""Filling a latency table: which layers to time at which widths, in what order, at which clock.

The clock of a shared machine drifts by more than the timings differ. So whatever is timed apart is tied by
anchors, layers that are timed both times: what is added to a shape is brought to the clock of what is known
of it, and at the end the anchors of all shapes are timed within a moment and every shape scaled to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from toolchain.contracts import Device, Progress, Runtime
from toolchain.latency.table import PERIOD, Axes, LatencyTable, Steps, at_widths, is_depthwise, shape_key
from toolchain.latency.timings import Points, Timings, timings
from toolchain.values import Layer, Precision

BATCH: Final = 192
"""Layers timed in one go, some seconds' worth: an interrupted run loses no more."""
ANCHORS: Final = 3
"""Layers that tell the clock of a shape: its largest ones."""
DRIFT: Final = 1.5
"""More than this is no drift of the clock."""
RESOLUTION_MS: Final = 0.002
"""Shorter layers are timed too coarsely to tell a drift, or a step."""
RISE: Final = 0.02
"""A rise over a block of channels by a smaller share cannot be divided further."""
SLOW: Final = 1.15
"""A width that takes so many times as long as a whole block more takes a slow path."""
FINE: Final = 4
"""Channels between the widths of a block that is timed finely."""

Widths = tuple[int, int]
Lines = tuple[list[Widths], list[Widths]]
Clock = Callable[[Sequence[Layer], Progress], tuple[float | None, ...]]
"""Times layers, in their order."""


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

    Args:
        device: where to time; asked for `probe`.
        runtime: the engine.
        precision: fp32 or int8.
        layers: all layers of the network; equal shapes are timed once.
        grids: axes by `Layer.node`; a layer not named is timed at its own widths only.
        threads: of the runtime.
        cache: the user's cache folder; timings of other conditions in it are not used.
        progress: told of layers done, of all that the table needs.

    Raises:
        DeviceError: the device failed; what was finished before is kept in the cache.
        InputError: the cache folder cannot be written.
    """
    kept = timings(cache, device.conditions(runtime, threads), precision)
    axes = {layer.node: _fitting(layer, grids.get(layer.node)) for layer in layers}
    lines = _lines(layers, axes)
    wanted: dict[str, dict[Widths, Layer]] = {}
    for layer in layers:
        into, out = lines[shape_key(layer)]
        pairs = [*_product(layer, axes[layer.node]), *into, *out]
        wanted.setdefault(shape_key(layer), {}).update((pair, at_widths(layer, pair)) for pair in pairs)

    def clock(asked: Sequence[Layer], told: Progress) -> tuple[float | None, ...]:
        return device.probe(runtime, precision, asked, threads=threads, progress=told)

    points = _completed(kept, wanted, clock, progress, f"{runtime.name} {precision} layers")
    current = _at_todays_clock(layers, points, clock, progress)
    timed = {layer.node: axes[layer.node] for layer in layers if shape_key(layer) in points}
    return LatencyTable(
        runtime=runtime.name,
        precision=precision,
        threads=threads,
        axes=timed,
        points=current,
        steps={
            key: (_steps(current[key], lines[key][0]), _steps(current[key], lines[key][1])) for key in current
        },
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The progress of one part of a longer stage."""

    whole: Progress
    before: int
    count: int
    total: int
    note: str

    def stage(self, title: str) -> None:
        """The stage goes on."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` of this part."""
        self.whole.step(self.before + self.count * done // max(total, 1), self.total, self.note)


def _completed(
    kept: Timings, wanted: Mapping[str, Mapping[Widths, Layer]], clock: Clock, progress: Progress, note: str
) -> dict[str, Points]:
    """All points of every shape, the missing ones timed and kept; without shapes that cannot be timed."""
    points: dict[str, Points] = {}
    total, done = sum(map(len, wanted.values())), 0
    waiting = list(wanted)
    while waiting:
        with kept.alone():
            known = {key: kept.known(key) for key in waiting}
            missing = {key: [w for w in wanted[key] if w not in known[key]] for key in waiting}
            batch = _batch(missing)
            count = sum(len(wanted[key]) for key in batch)
            part = _Part(whole=progress, before=done, count=count, total=total, note=note)
            points |= _timed(kept, {key: wanted[key] for key in batch}, known, clock, part)
        done += count
        waiting = [key for key in waiting if key not in batch]
        progress.step(done, total, note)
    return points


def _batch(missing: Mapping[str, Sequence[Widths]]) -> list[str]:
    """Whole shapes, in order, until there are `BATCH` layers to time."""
    found: list[str] = []
    count = 0
    for key, widths in missing.items():
        if count and count + len(widths) > BATCH:
            break
        found.append(key)
        count += len(widths)
    return found


def _timed(
    kept: Timings,
    wanted: Mapping[str, Mapping[Widths, Layer]],
    known: Mapping[str, Points],
    clock: Clock,
    progress: Progress,
) -> dict[str, Points]:
    """The points of these shapes, timed together where missing, and kept."""
    asked: list[tuple[str, Widths]] = []
    for key, layers in wanted.items():
        missing = [widths for widths in layers if widths not in known[key]]
        asked += [(key, widths) for widths in (*(_anchors(known[key]) if missing else ()), *missing)]
    samples = {key: next(iter(layers.values())) for key, layers in wanted.items()}
    times = clock([at_widths(samples[key], widths) for key, widths in asked], progress) if asked else ()
    now: dict[str, dict[Widths, float | None]] = {key: {} for key in wanted}
    for (key, widths), ms in zip(asked, times, strict=True):
        now[key][widths] = ms
    points: dict[str, Points] = {}
    for key, found in now.items():
        new = {widths: ms for widths, ms in found.items() if ms is not None}
        if len(new) < len(found):
            continue
        points[key] = known[key]
        if new:
            factor = _drift(then=new, now=known[key])
            points[key] = {w: ms * factor for w, ms in new.items()} | known[key]
            kept.keep(key, points[key])
    return points


def _at_todays_clock(
    layers: Sequence[Layer], points: Mapping[str, Points], clock: Clock, progress: Progress
) -> dict[str, Points]:
    """The points, each shape scaled by what its anchors take now over what they took then."""
    samples = {shape_key(layer): layer for layer in layers if shape_key(layer) in points}
    asked = [(key, widths) for key in samples for widths in _anchors(points[key])]
    part = _Part(whole=progress, before=1, count=0, total=1, note="the clock of today")
    now: dict[str, Points] = {key: {} for key in samples}
    for (key, widths), ms in zip(
        asked, clock([at_widths(samples[k], w) for k, w in asked], part), strict=True
    ):
        if ms is not None:
            now[key][widths] = ms
    factors = {key: _drift(then=points[key], now=found) for key, found in now.items()}
    return {key: {w: ms * factors[key] for w, ms in points[key].items()} for key in samples}


def _anchors(points: Mapping[Widths, float]) -> list[Widths]:
    return sorted(points, key=lambda w: (w[0] * w[1], w))[-ANCHORS:]


def _drift(*, then: Mapping[Widths, float], now: Mapping[Widths, float]) -> float:
    """How much slower the clock is now, by the points on both sides; 1 where these are too short to tell."""
    both = then.keys() & now.keys()
    before, after = (sum(points[widths] for widths in sorted(both)) for points in (then, now))
    if before < RESOLUTION_MS or after < RESOLUTION_MS:
        return 1.0
    return min(max(after / before, 1 / DRIFT), DRIFT)


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


def _product(layer: Layer, axes: Axes) -> list[Widths]:
    """Every grid point; a depthwise layer has one axis."""
    if is_depthwise(layer):
        ratio = layer.out_channels // layer.in_channels
        return [(width, width * ratio) for width in axes.inputs]
    return [(inputs, outputs) for inputs in axes.inputs for outputs in axes.outputs]


def _lines(layers: Sequence[Layer], axes: Mapping[str, Axes]) -> dict[str, Lines]:
    """By shape: one block of inputs and one of outputs in fine steps, of the largest layer that has one."""
    found: dict[str, Lines] = {}
    for layer in layers:
        into, out = _block(axes[layer.node].inputs), _block(axes[layer.node].outputs)
        if is_depthwise(layer):
            ratio = layer.out_channels // layer.in_channels
            pair: Lines = [(width, width * ratio) for width in into], []
        elif layer.groups > 1:
            pair = [], []
        else:
            pair = [(w, layer.out_channels) for w in into], [(layer.in_channels, w) for w in out]
        before = found.setdefault(shape_key(layer), pair)
        found[shape_key(layer)] = max(before[0], pair[0]), max(before[1], pair[1])
    return found


def _block(axis: Sequence[int]) -> list[int]:
    """`PERIOD` channels in fine steps, low on the axis, where they weigh; none on a short one."""
    start = max(math.ceil(axis[0] / PERIOD) * PERIOD, 2 * PERIOD if axis[-1] >= 3 * PERIOD else PERIOD)
    if len(axis) == 1 or start + PERIOD > axis[-1]:
        return []
    return list(range(start, start + PERIOD + 1, FINE))


def _steps(points: Points, line: Sequence[Widths]) -> Steps:
    """How time rises over a block; empty where it hardly does and no width is slow."""
    times = [points[widths] for widths in line]
    if not times or times[-1] < RESOLUTION_MS:
        return ()
    rise = times[-1] - times[0]
    steady = rise < max(RESOLUTION_MS, RISE * times[-1])
    found: list[tuple[int, float, float]] = []
    for k, ms in enumerate(times):
        even = k / (len(times) - 1)
        straight = times[0] + rise * even
        if ms > SLOW * max(times[-1], straight):
            found.append((FINE * k, even, ms / straight))
        else:
            share = even if steady else min(max((ms - times[0]) / rise, 0.0), 1.0)
            found.append((FINE * k, share, 1.0))
    if steady and all(slow == 1 for *_, slow in found):
        return ()
    return tuple(found)
