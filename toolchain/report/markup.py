"""The parts of the report's pages: one self-contained document, titled cards, tables."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from html import escape


def document(title: str, body: str) -> str:
    """A whole page: style inside; no script, no font, no picture from elsewhere."""
    style = (importlib.resources.files(__package__) / "style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def section(title: str, content: str, caption: str = "") -> Iterator[str]:
    """A titled card; nothing when it has no content."""
    if content:
        below = f'<p class="caption">{escape(caption)}</p>' if caption else ""
        yield f"<section><h2>{escape(title)}</h2>{content}{below}</section>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, mark: int | None = None) -> str:
    """A table; the cells of column `mark` are coloured by their first word. Empty without rows."""
    if not rows:
        return ""
    head = f"<tr>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr>" if heads else ""
    lines = []
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            style = f' class="{cell.split()[0]}"' if column == mark and cell else ""
            cells.append(f"<td{style}>{escape(cell)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{head}{''.join(lines)}</table>"
