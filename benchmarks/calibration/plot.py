"""Predicted against measured, both logarithmic: one panel for each thing that was asked, as one SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

SIDE, MARGIN = 300, 46
COLOUR, GREY = "#2563a8", "#999"
Panel = tuple[str, float, Sequence[Mapping[str, Any]]]
"""Title, the asked limit of the mean error in percent, and rows with `ms` and `predicted`."""


def plot(panels: Sequence[Panel]) -> str:
    """The panels side by side, two in a row; the grey band is the asked limit around equality."""
    width, height = 2 * (SIDE + MARGIN) + MARGIN, (len(panels) + 1) // 2 * (SIDE + 2 * MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="11"><rect width="{width}" height="{height}" fill="white"/>'
    ]
    for k, panel in enumerate(panels):
        x, y = MARGIN + k % 2 * (SIDE + MARGIN), MARGIN + k // 2 * (SIDE + 2 * MARGIN)
        parts += [f'<g transform="translate({x},{y})">', *_panel(*panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, limit: float, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    known = [(r["ms"], r["predicted"], r["network"]) for r in rows if r["predicted"]]
    values = [v for row in known for v in row[:2]]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05

    def at(ms: float) -> float:
        return (math.log10(ms) - low) / (high - low) * SIDE

    identity = "".join(c for c in title if c.isalnum())
    band = math.log10(1 + limit / 100) / (high - low) * SIDE
    yield f'<text x="0" y="-10">{escape(title)} ({len(known)} rows)</text>'
    yield f'<clipPath id="c{identity}"><rect width="{SIDE}" height="{SIDE}"/></clipPath>'
    yield f'<g clip-path="url(#c{identity})">'
    yield (
        f'<polygon points="0,{SIDE - band} {SIDE},{-band} {SIDE},{band} 0,{SIDE + band}" fill="#ddd"/>'
        f'<line x1="0" y1="{SIDE}" x2="{SIDE}" y2="0" stroke="{GREY}"/></g>'
    )
    yield f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="{GREY}"/>'
    for power in range(math.ceil(low), math.floor(high) + 1):
        place = at(10.0**power)
        yield f'<text x="{place}" y="{SIDE + 14}" text-anchor="middle">{10.0**power:g}</text>'
        yield f'<text x="-4" y="{SIDE - place + 4}" text-anchor="end">{10.0**power:g}</text>'
    for ms, predicted, network in known:
        told = f"{network}: measured {ms:g} ms, predicted {predicted:g} ms"
        yield (
            f'<circle cx="{at(ms):.1f}" cy="{SIDE - at(predicted):.1f}" r="2.2" fill="{COLOUR}"'
            f' fill-opacity="0.45"><title>{escape(told)}</title></circle>'
        )
    yield f'<text x="{SIDE / 2}" y="{SIDE + 30}" text-anchor="middle">measured (ms)</text>'
    yield (
        f'<text transform="translate(-32,{SIDE / 2}) rotate(-90)" text-anchor="middle">'
        "predicted, network unseen (ms)</text>"
    )
