"""A history of gates as text, as SVG and as a page."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from toolchain.report import words
from toolchain.report.markup import document, section
from toolchain.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis
from toolchain.report.summary import table

Record = Mapping[str, Any]
RECENT: Final = 10
_STYLE: Final = {"pass": "after", "fail": "other", "inconclusive": "before"}


def history_text(record: Record) -> str:
    """The last points of every series, and its changes."""
    return "\n".join(_text(record)) + "\n"


def _text(record: Record) -> Iterator[str]:
    for series in record["series"]:
        points = series["points"]
        yield f"{_title(series)}: {len(points)} gates"
        yield ""
        rows = [("when", "commit", "p50", "95 % interval", "ratio", "verdict")]
        for point in points[-RECENT:]:
            rows.append(
                (
                    point["created"],
                    (point.get("commit") or "")[:10],
                    words.milliseconds(point["p50_ms"]),
                    words.span(point["p50_low_ms"], point["p50_high_ms"]),
                    f"{point['ratio']:.3f}x",
                    point["verdict"],
                )
            )
        yield from table(rows)
        yield ""
        yield from (_change_line(series, change) for change in series["changes"])
        if not series["changes"]:
            yield "no change found"
    yield f"changes by {record['method']}"
    if record["skipped_lines"]:
        yield f"note: {record['skipped_lines']} lines are not whole and were left out"


def _title(series: Record) -> str:
    threads = series["identity"]["threads"]
    runtime = f"{series['identity']['runtime']} {series['identity']['runtime_version']}"
    return f"{series['candidate']} on {series['target']} ({runtime}, {threads} thread{'s' * (threads > 1)})"


def _change_line(series: Record, change: Record) -> str:
    point = series["points"][change["index"]]
    commit = f", commit {point['commit'][:10]}" if point.get("commit") else ""
    factor = f"{change['after'] / change['before']:.3f}x"
    return (
        f"changed at {point['created']}{commit}: {words.milliseconds(change['before'])} ->"
        f" {words.milliseconds(change['after'])} ({factor}, p {change['p']:.3f})"
    )


def picture(record: Record, path: Path) -> str:
    """The whole file: an SVG of all series, one below the other, or a page with one each."""
    plots = [_plot(series) for series in record["series"]]
    if path.suffix.lower() == ".svg":
        style = (importlib.resources.files("toolchain.report") / "style.css").read_text(encoding="utf-8")
        parts = [f'<g transform="translate(0 {HEIGHT * k})">{plot}</g>' for k, plot in enumerate(plots)]
        box = f'viewBox="0 0 {WIDTH} {HEIGHT * len(plots)}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{style}</style>{"".join(parts)}</svg>\n'
    body = ["<header><h1>Latency from gate to gate</h1></header>"]
    for series, plot in zip(record["series"], plots, strict=True):
        found = "".join(f"<li>{escape(_change_line(series, c))}</li>" for c in series["changes"])
        svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{plot}</svg>'
        body += section(_title(series), f"{svg}<ul>{found}</ul>", f"changes by {record['method']}")
    return document("Latency from gate to gate", "\n".join(body))


def _plot(series: Record) -> str:
    """The series as SVG elements: points with intervals, segments' medians, a line at each change."""
    points: Sequence[Record] = series["points"]
    values = [p[key] for p in points for key in ("p50_low_ms", "p50_high_ms")]
    low, high = min(values), max(values)
    pad = max((high - low) * 0.15, high * 0.01)
    x = Axis(low=-0.5, high=max(len(points) - 0.5, 0.5), start=LEFT, end=WIDTH - RIGHT)
    y = Axis(low=low - pad, high=high + pad, start=HEIGHT - BOTTOM, end=TOP)
    return "".join([*_frame(y), *_medians(series, x, y), *_points(points, x, y), *_labels(series, x)])


def _frame(y: Axis) -> Iterator[str]:
    for tick in y.ticks():
        at = f"{y.at(tick):.1f}"
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{at}" text-anchor="end" dy="4">{tick:g}</text>'
    yield f'<text class="title" x="{LEFT}" y="{TOP - 4}">latency p50 (ms)</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text class="title" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">gate</text>'


def _medians(series: Record, x: Axis, y: Axis) -> Iterator[str]:
    found = series["changes"]
    edges = [0, *(change["index"] for change in found), len(series["points"])]
    levels = [found[0]["before"], *(change["after"] for change in found)] if found else []
    for level, start, end in zip(levels, edges, edges[1:], strict=False):
        ends = f'x1="{x.at(start - 0.5):.1f}" x2="{x.at(end - 0.5):.1f}"'
        yield f'<line class="range after" {ends} y1="{y.at(level):.1f}" y2="{y.at(level):.1f}"/>'


def _points(points: Sequence[Record], x: Axis, y: Axis) -> Iterator[str]:
    for number, point in enumerate(points):
        at, style = f"{x.at(number):.1f}", _STYLE.get(point["verdict"], "before")
        ends = f'y1="{y.at(point["p50_low_ms"]):.1f}" y2="{y.at(point["p50_high_ms"]):.1f}"'
        said = f"{point['created']} {(point.get('commit') or '')[:10]} {words.milliseconds(point['p50_ms'])}"
        yield f'<line class="range {style}" x1="{at}" x2="{at}" {ends}/>'
        yield f'<circle class="dot {style}" cx="{at}" cy="{y.at(point["p50_ms"]):.1f}" r="3.5">'
        yield f"<title>{escape(said)}: {escape(point['verdict'])}</title></circle>"


def _labels(series: Record, x: Axis) -> Iterator[str]:
    for change in series["changes"]:
        at = x.at(change["index"] - 0.5)
        text = f"{change['after'] / change['before']:.2f}x"
        yield f'<line class="budget" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text class="budget-text" x="{at + 4:.1f}" y="{TOP + 10}">{text}</text>'
