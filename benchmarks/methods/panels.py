"""Small pictures of results: panels side by side, lines through means, a dot for every run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import mean

SIDE, GAP, LEGEND = 260, 60, 18
COLOURS = ("#1b6ca8", "#d1495b", "#3c8d40", "#8e5ea2", "#e08e0b", "#5b5b5b", "#12a4a4", "#a05a2c")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture. `series`: (x, y) of all runs by name; runs with the same x are averaged for the line.

    `level` is a horizontal line, with its name; `reads` says how numbers of the x axis are written.
    """

    title: str
    x: str
    y: str
    series: Mapping[str, Points]
    level: tuple[str, float] | None = None
    reads: Callable[[float], str] = "{:g}".format


def svg(panels: Sequence[Panel]) -> str:
    """All panels in a row, with one legend below."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    width = len(panels) * (SIDE + GAP) + GAP
    bottom = SIDE + 2 * GAP
    body = [part for n, panel in enumerate(panels) for part in _panel(GAP + n * (SIDE + GAP), panel, colours)]
    across = max(1, (width - GAP) // 200)
    for place, name in enumerate(names):
        left, top = GAP + 200 * (place % across), bottom + LEGEND * (place // across)
        body.append(f'<circle cx="{left}" cy="{top}" r="4" fill="{colours[name]}"/>')
        body.append(f'<text x="{left + 9}" y="{top + 4}">{escape(name)}</text>')
    height = bottom + LEGEND * (-(-len(names) // across)) + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        ' font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(body)}</svg>\n'
    )


def _panel(left: int, panel: Panel, colours: Mapping[str, str]) -> Iterator[str]:
    xs = sorted({x for points in panel.series.values() for x, _ in points})
    ys = [y for points in panel.series.values() for _, y in points]
    ys += [panel.level[1]] if panel.level else []
    low, high, step = _range(ys)
    bottom = GAP + SIDE

    def across(x: float) -> float:
        return left + SIDE * (0.06 + 0.88 * ((x - xs[0]) / (xs[-1] - xs[0]) if xs[-1] > xs[0] else 0.5))

    def up(y: float) -> float:
        return bottom - SIDE * (y - low) / (high - low)

    yield f'<rect x="{left}" y="{GAP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>'
    yield f'<text x="{left}" y="{GAP - 24}" font-weight="bold">{escape(panel.title)}</text>'
    yield f'<text x="{left}" y="{GAP - 8}">{escape(panel.y)}</text>'
    yield f'<text x="{left + SIDE / 2}" y="{bottom + 34}" text-anchor="middle">{escape(panel.x)}</text>'
    for n in range(round((high - low) / step) + 1):
        value = low + n * step
        yield f'<text x="{left - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
    few = xs if len(xs) <= 6 else [xs[0], xs[len(xs) // 2], xs[-1]]
    for x in few:
        yield f'<text x="{across(x):.1f}" y="{bottom + 16}" text-anchor="middle">{panel.reads(x)}</text>'
    if panel.level:
        y = up(panel.level[1])
        yield f'<path d="M{left} {y:.1f}h{SIDE}" stroke="#999" stroke-dasharray="4 3"/>'
        yield f'<text x="{left + 4}" y="{y - 3:.1f}" fill="#777">{escape(panel.level[0])}</text>'
    for name, points in panel.series.items():
        at = {x: mean(y for other, y in points if other == x) for x in sorted({x for x, _ in points})}
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in at.items())
        yield f'<polyline points="{line}" fill="none" stroke="{colours[name]}" stroke-width="1.5"/>'
        for x, y in points:
            yield f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{colours[name]}"/>'


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest and highest value of an axis, and the distance of its numbers."""
    span = max(max(values) - min(values), 1e-9)
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 100, math.inf) if span / s <= 7)
    return math.floor(min(values) / step) * step, (math.floor(max(values) / step) + 1) * step, step
