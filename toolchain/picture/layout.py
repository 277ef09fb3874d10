"""Where boxes go: rows from top to bottom, few crossings, straight lines (layered drawing).

After Sugiyama, Tagawa and Toda (1981): rows by the longest path, order within rows by barycentres, positions
by least squares. Arrows over several rows share one lane for each source: a dense block stays narrow.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Final

BETWEEN: Final = 18
"""Least distance of neighbours in a row, in pixels."""
SWEEPS: Final = 6
STRAIGHT, LOOSE = 8.0, 0.05
"""Pull along a lane, and between a lane and a box: lanes stay straight and do not bend the trunk."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A box (`box` is its number) or one row of a lane (`box` is None): its row and the middle's x."""

    box: int | None
    row: int
    x: float


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Places, and the lines between them as pairs of their numbers; x runs from 0 to `width`."""

    places: tuple[Place, ...]
    lines: tuple[tuple[int, int], ...]
    width: float


def layout(widths: Sequence[float], arrows: Sequence[tuple[int, int]]) -> Layout:
    """Places for boxes of these widths (pixels) with these arrows (no cycles)."""
    rows = _rows(len(widths), arrows)
    row_of, lines = _with_lanes(rows, arrows)
    wide = [*widths, *[0.0] * (len(row_of) - len(widths))]
    above: list[list[int]] = [[] for _ in row_of]
    below: list[list[int]] = [[] for _ in row_of]
    for a, b in lines:
        above[b].append(a)
        below[a].append(b)
    order = _ordered(row_of, above, below)
    x = _positions(order, wide, above, below, len(widths))
    left = min((x[i] - wide[i] / 2 for i in range(len(x))), default=0.0)
    right = max((x[i] + wide[i] / 2 for i in range(len(x))), default=0.0)
    places = tuple(
        Place(box=i if i < len(widths) else None, row=row, x=x[i] - left) for i, row in enumerate(row_of)
    )
    return Layout(places=places, lines=tuple(lines), width=right - left)


def _rows(count: int, arrows: Sequence[tuple[int, int]]) -> list[int]:
    """The longest path to each box; a box without predecessors stands right above its first user."""
    above: dict[int, list[int]] = {i: [] for i in range(count)}
    for a, b in arrows:
        above[b].append(a)
    rows = [0] * count
    for box in TopologicalSorter(above).static_order():
        rows[box] = max((rows[a] + 1 for a in above[box]), default=0)
    first = [math.inf] * count
    for a, b in arrows:
        first[a] = min(first[a], rows[b] - 1)
    return [int(first[i]) if not above[i] and first[i] < math.inf else row for i, row in enumerate(rows)]


def _with_lanes(
    rows: Sequence[int], arrows: Sequence[tuple[int, int]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Rows of boxes and lane pieces, and lines between neighbouring rows; one lane a source."""
    row_of = list(rows)
    lanes: dict[tuple[int, int], int] = {}
    lines: list[tuple[int, int]] = []
    for a, b in arrows:
        at = a
        for row in range(rows[a] + 1, rows[b]):
            if (a, row) not in lanes:
                lanes[a, row] = len(row_of)
                row_of.append(row)
                lines.append((at, lanes[a, row]))
            at = lanes[a, row]
        lines.append((at, b))
    return row_of, lines


def _ordered(
    row_of: Sequence[int], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]
) -> list[list[int]]:
    """The order within each row: barycentres of the neighbours, down and up, the best of all sweeps."""
    order: list[list[int]] = [[] for _ in range(max(row_of, default=-1) + 1)]
    for place, row in enumerate(row_of):
        order[row].append(place)
    best, fewest = [list(row) for row in order], _crossings(order, above)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for places in order if down else reversed(order):
            _sort(places, above if down else below, order, row_of)
        crossings = _crossings(order, above)
        if crossings < fewest:
            best, fewest = [list(row) for row in order], crossings
    return best


def _sort(
    row: list[int], near: Sequence[Sequence[int]], order: Sequence[Sequence[int]], row_of: Sequence[int]
) -> None:
    """Sort one row by the mean place of its neighbours; who has none keeps about its place."""
    rows = {row_of[n] for place in row for n in near[place]}
    at = {n: i / max(len(order[r]), 1) for r in rows for i, n in enumerate(order[r])}
    keys: Mapping[int, float] = {
        place: sum(at[n] for n in near[place]) / len(near[place]) if near[place] else i / len(row)
        for i, place in enumerate(row)
    }
    row.sort(key=lambda place: keys[place])


def _crossings(order: Sequence[Sequence[int]], above: Sequence[Sequence[int]]) -> int:
    """Pairs of lines that cross, over all rows."""
    total = 0
    for upper, row in pairwise(order):
        at = {n: i for i, n in enumerate(upper)}
        seen: list[int] = []
        for place in row:
            mine = sorted(at[n] for n in above[place] if n in at)
            total += sum(len(seen) - bisect_left(seen, i + 1) for i in mine)
            for i in mine:
                insort(seen, i)
    return total


def _positions(
    order: Sequence[Sequence[int]],
    wide: Sequence[float],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    boxes: int,
) -> list[float]:
    """Middles of all places: as near its neighbours as the order and the widths allow."""
    x = [0.0] * len(wide)
    for row in order:
        _spread(row, [0.0] * len(row), wide, x, boxes)
    nobody: list[list[int]] = [[] for _ in wide]
    for sweep in range(2 * SWEEPS):
        down, last = sweep % 2 == 0, sweep >= 2 * SWEEPS - 2
        up, low = (above if down or last else nobody), (nobody if down and not last else below)
        for row in order if down else reversed(order):
            _spread(row, [_wanted(p, x, up[p], low[p], boxes) for p in row], wide, x, boxes)
    return x


def _wanted(place: int, x: Sequence[float], above: Sequence[int], below: Sequence[int], boxes: int) -> float:
    """The mean of the neighbours' x, weighted by how straight their line should be."""
    total = weights = 0.0
    for near in (*above, *below):
        lanes = (place >= boxes) + (near >= boxes)
        weight = (1.0, LOOSE, STRAIGHT)[lanes]
        total += weight * x[near]
        weights += weight
    return total / weights if weights else x[place]


def _spread(
    row: Sequence[int], wanted: Sequence[float], wide: Sequence[float], x: list[float], boxes: int
) -> None:
    """The x nearest to what is wanted, in this order and without overlap (isotonic regression)."""
    offsets, offset = [], 0.0
    for i, place in enumerate(row):
        if i:
            offset += (wide[row[i - 1]] + wide[place]) / 2 + BETWEEN
        offsets.append(offset)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, places
    for i, place in enumerate(row):
        mean, weight, count = wanted[i] - offsets[i], 1.0 if place < boxes else LOOSE, 1
        while blocks and blocks[-1][0] >= mean:
            other, other_weight, other_count = blocks.pop()
            mean = (mean * weight + other * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        blocks.append((mean, weight, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for place, mean, shift in zip(row, means, offsets, strict=True):
        x[place] = mean + shift
