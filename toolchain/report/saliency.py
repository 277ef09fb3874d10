"""The picture of what of the input is kept: cells as dark as they are worth, those kept outlined.

Colours are part of it, so that the picture can be opened alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

WIDTH: Final = 640
EDGE: Final = 14
LARGEST: Final = 34
"""Side of a cell in pixels, at most."""
MOST: Final = 64
"""Cells in a row or column of the picture of an image's pixels, at most; several then share one."""
NUMBERED: Final = 20
"""Side of a cell from which on its number is written in it."""
DARK: Final = 0.4
"""Share of the most that any cell is worth, from which on its number is white."""
WORTH, KEPT, UNKNOWN, TEXT = "#0b6bcb", "#d9480f", "#8a94a3", "#5d6673"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A part of the input: what it is worth in nats (None: it has to stay), whether it is kept, its name."""

    nats: float | None
    kept: bool
    number: str = ""


def saliency(view: Mapping[str, Any], *, alone: bool = False) -> str:
    """The picture of a plan's `inputs`; `alone`: as a file of its own."""
    body: list[str] = []
    top: float = EDGE
    for title, rows in _parts(view):
        body.append(_text(EDGE, top + 10, title))
        drawn, height = _grid(rows, top + 20)
        body += drawn
        top += 20 + height + 2 * EDGE
    legend = "dark: worth much; outlined: handed to the network; grey: has to stay"
    body.append(_text(EDGE, top, legend))
    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    title = escape(f"what of the input is kept: {view['text']}")
    inner = "\n".join(body)
    return (
        f'<svg{space} class="narrow" viewBox="0 0 {WIDTH} {top + EDGE}" role="img" aria-label="{title}">'
        f"<title>{title}</title>\n{inner}\n</svg>\n"
    )


def _parts(view: Mapping[str, Any]) -> Iterator[tuple[str, list[list[Cell]]]]:
    """(title, rows of cells): channels or features, then the pixels of an image."""
    shape, nats = view["shape"], view["nats"]
    kept = set(range(len(nats)) if view["kept"] is None else view["kept"])
    cells = [Cell(nats=n, kept=i in kept, number=str(i)) for i, n in enumerate(nats)]
    if view["flat"]:
        yield f"pixels of {shape[1]} x {shape[2]}, best of {shape[0]} channels", _pixels(cells, shape)
    elif cells:
        across = min(len(cells), MOST // 4)
        rows = [cells[i : i + across] for i in range(0, len(cells), across)]
        yield f"{len(kept)} of {len(cells)} {'channels' if len(shape) > 1 else 'features'}", rows
    if view["block_nats"]:
        yield f"squares of {view['block']} x {view['block']} pixels", _squares(view)


def _squares(view: Mapping[str, Any]) -> list[list[Cell]]:
    block, blank = view["block"], {tuple(square) for square in view["blank"]}
    top, left, height, width = view["crop"] or (0, 0, *view["shape"][1:])

    def inside(row: int, column: int) -> bool:
        there = top <= row * block < top + height and left <= column * block < left + width
        return there and (row, column) not in blank

    return [
        [Cell(nats=nats, kept=inside(row, column)) for column, nats in enumerate(line)]
        for row, line in enumerate(view["block_nats"])
    ]


def _pixels(cells: Sequence[Cell], shape: Sequence[int]) -> list[list[Cell]]:
    """The best of the channels of every pixel, of several pixels where there are too many."""
    channels, height, width = shape
    step = math.ceil(max(height, width) / MOST)
    return [
        [
            _best(
                cells[(c * height + i) * width + j]
                for c in range(channels)
                for i in range(row, min(row + step, height))
                for j in range(column, min(column + step, width))
            )
            for column in range(0, width, step)
        ]
        for row in range(0, height, step)
    ]


def _best(cells: Iterator[Cell]) -> Cell:
    return max(cells, key=lambda cell: (cell.kept, cell.nats or 0.0))


def _grid(rows: Sequence[Sequence[Cell]], top: float) -> tuple[list[str], float]:
    """The cells, and how high they are together."""
    side = min(LARGEST, (WIDTH - 2 * EDGE) / max(len(row) for row in rows))
    most = max((cell.nats or 0.0 for row in rows for cell in row), default=0.0) or 1.0
    found, outlines = [], []
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            x, y = EDGE + j * side, top + i * side
            fill, share = (UNKNOWN, 0.5) if cell.nats is None else (WORTH, cell.nats / most)
            place = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{side - 2:.1f}" height="{side - 2:.1f}"'
            found.append(f'<rect {place} fill="{fill}" fill-opacity="{0.04 + 0.9 * share:.2f}"/>')
            if cell.kept:
                outlines.append(f'<rect {place} fill="none" stroke="{KEPT}" stroke-width="1.5"/>')
            if cell.number and side >= NUMBERED:
                colour = "#fff" if share > DARK else TEXT
                middle = x + side / 2, y + side / 2 + 4
                outlines.append(_text(*middle, cell.number, anchor="middle", colour=colour))
    return [*found, *outlines], len(rows) * side


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = TEXT) -> str:
    style = f'text-anchor="{anchor}" style="font:12px sans-serif;fill:{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
