"""The pictures of the report: inline SVG, drawn here; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

WIDTH: Final = 640
HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 16, 46
CHARACTER: Final = 6.4
"""Mean width of a label's character, in pixels."""
BINS: Final = 48
SHOWN: Final = 0.99
TAIL: Final = 2.5
"""The distribution ends at this quantile or multiple of the median: a few interrupted runs would flatten the
rest. What lies beyond is counted in the legend."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One network file: latency with its 95 % interval, the metric, and how to draw it."""

    label: str
    ms: float
    low_ms: float
    high_ms: float
    metric: float
    style: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear map of values to pixels with round ticks."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> tuple[float, ...]:
        """Four to eight round values within the axis."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= max(m for m in (1, 2, 5) if step * m <= (self.high - self.low) / 3.9)
        first = math.ceil(self.low / step - 1e-9)
        return tuple(i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1))


def scatter(
    points: Sequence[Point],
    *,
    budgets_ms: Sequence[float],
    y_title: str,
    x_title: str = "latency p50 (ms)",
) -> str:
    """The metric, or what stands in for it, against latency; left of a budget's line it is held."""
    x = _axis([0.0, *(p.high_ms for p in points), *budgets_ms], LEFT, WIDTH - RIGHT)
    y = _axis([p.metric for p in points], HEIGHT - BOTTOM, TOP, pad=0.25, floor=0.5)
    body = [*_grid(x, y, x_title, y_title)]
    for number, budget_ms in enumerate(budgets_ms):
        body += _budget(x, budget_ms, line=number)
    taken: list[tuple[float, float, float]] = []
    for p in points:
        px, py = x.at(p.ms), y.at(p.metric)
        body.append(
            f'<line class="range {p.style}" x1="{x.at(p.low_ms):.1f}" x2="{x.at(p.high_ms):.1f}"'
            f' y1="{py:.1f}" y2="{py:.1f}"/>'
        )
        body.append(f'<circle class="dot {p.style}" cx="{px:.1f}" cy="{py:.1f}" r="6"/>')
        length = CHARACTER * len(p.label)
        anchor = "end" if px + length > WIDTH - RIGHT else "start"
        left = px - length if anchor == "end" else px
        line = _free_line(left, left + length, py, taken)
        taken.append((left, left + length, line))
        body.append(_text("label", px, line, p.label, anchor=anchor))
    return _svg(body, HEIGHT, f"{y_title} against latency")


def _free_line(left: float, right: float, y: float, taken: Sequence[tuple[float, float, float]]) -> float:
    """The height of a label from `left` to `right` beside `y` that meets none of those `taken`."""
    lines = [y + away for step in range(2 * len(taken) + 1) for away in (-11 - 13 * step, 20 + 13 * step)]
    free = (
        line
        for line in lines
        if TOP < line < HEIGHT - BOTTOM
        and not any(abs(line - at) < 13 and left < end and start < right for start, end, at in taken)
    )
    return next(free, lines[0])


def distribution(series: Mapping[str, Sequence[float]], *, budget_ms: float | None) -> str:
    """Histograms of the raw samples (name -> ms; the first is drawn as the original) on one axis."""
    joined = sorted(v for values in series.values() for v in values)
    ends = [_shown_end(sorted(v)) for v in series.values()]
    low, high = joined[0], max([*ends, budget_ms or 0.0])
    x = _axis([low, high], LEFT, WIDTH - RIGHT, pad=0.06)
    step = (x.high - x.low) / BINS
    shares = {}
    for name, values in series.items():
        bins = [0] * BINS
        for value in values:
            if x.low <= value < x.high:
                bins[int((value - x.low) / step)] += 1
        shares[name] = [100 * b / len(values) for b in bins]
    y = _axis([0.0, max(max(s) for s in shares.values())], HEIGHT - BOTTOM, TOP, floor=1.0, from_zero=True)
    body = list(_grid(x, y, "one inference (ms)", "% of runs"))
    for (name, bins_share), style in zip(shares.items(), ("before", "after"), strict=False):
        outline = [f"M{x.at(x.low):.1f},{y.at(0):.1f}"]
        for i, share in enumerate(bins_share):
            outline += [f"V{y.at(share):.1f}", f"H{x.at(x.low + (i + 1) * step):.1f}"]
        body.append(f'<path class="area {style}" d="{"".join(outline)}V{y.at(0):.1f}Z"/>')
        hidden = sum(v >= x.high for v in series[name])
        title = f"{name}: {len(series[name])} runs" + (f", {hidden} beyond the right edge" if hidden else "")
        line = TOP + 26 + 18 * (style == "after")
        body.append(f'<rect class="key {style}" x="{WIDTH - 318}" y="{line - 9}" width="10" height="10"/>')
        body.append(_text("label", WIDTH - 302, line, title))
    return _svg([*body, *_budget(x, budget_ms)], HEIGHT, "distribution of latency")


def _shown_end(values: Sequence[float]) -> float:
    """Where the picture of these sorted samples ends."""
    return min(values[min(len(values) - 1, int(SHOWN * len(values)))], TAIL * values[len(values) // 2])


def widths(layers: Sequence[Mapping[str, Any]]) -> str:
    """Output channels of each layer before (outline) and after (filled)."""
    row = 18 if len(layers) <= 40 else 13
    name_width = min(max(len(str(w["layer"])) for w in layers) * 7 + 12, 230)
    most = max(w["before"] for w in layers)
    scale = (WIDTH - name_width - 96) / most
    body = []
    for i, layer in enumerate(layers):
        top, before, after = TOP + i * row, layer["before"], layer["after"]
        middle = top + row * 0.68
        text = f"{before}" if before == after else f"{before} \N{RIGHTWARDS ARROW} {after}"
        name = str(layer["layer"])
        name = name if len(name) <= 32 else f"...{name[-29:]}"
        body += [
            _text("tick", name_width - 8, middle, name, anchor="end"),
            f'<rect class="area before" x="{name_width}" y="{top + 2}" width="{before * scale:.1f}"'
            f' height="{row - 4}"/>',
            f'<rect class="bar after" x="{name_width}" y="{top + 2}" width="{after * scale:.1f}"'
            f' height="{row - 4}"/>',
            _text("tick", name_width + before * scale + 6, middle, text),
        ]
    return _svg(body, TOP + len(layers) * row + 10, "channels before and after", style="narrow")


def _axis(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    pad: float = 0.08,
    floor: float = 0.0,
    from_zero: bool = False,
) -> Axis:
    """An axis that shows all `values` with some room, at least `floor` long."""
    low, high = min(values), max(values)
    room = max((high - low) * pad, floor, 1e-9, abs(high) * 1e-3)
    return Axis(low=low if from_zero or low == 0 else low - room, high=high + room, start=start, end=end)


def _grid(x: Axis, y: Axis, x_title: str, y_title: str) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    for tick in y.ticks():
        at = y.at(tick)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield _text("tick", LEFT - 8, at + 4, f"{tick:g}", anchor="end")
    for tick in x.ticks():
        at = x.at(tick)
        yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
        yield _text("tick", at, bottom + 18, f"{tick:g}", anchor="middle")
    yield _text("title", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title, anchor="middle")
    yield (
        f'<text class="title" transform="translate(14 {(TOP + bottom) / 2}) rotate(-90)"'
        f' text-anchor="middle">{escape(y_title)}</text>'
    )


def _text(style: str, x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _budget(x: Axis, budget_ms: float | None, *, line: int = 0) -> Iterator[str]:
    if budget_ms is None:
        return
    at = x.at(budget_ms)
    yield f'<line class="budget" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    anchor, shift = ("end", -6) if at > WIDTH * 0.4 else ("start", 6)
    yield _text("budget-text", at + shift, TOP + 4 + 14 * line, f"budget {budget_ms:g} ms", anchor=anchor)


def _svg(body: Sequence[str], height: float, title: str, *, style: str = "plot") -> str:
    inner = "\n".join(body)
    return (
        f'<svg class="{style}" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>\n{inner}\n</svg>"
    )
