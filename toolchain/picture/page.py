"""The picture as one self-contained HTML page: hovering shows a group, a box searches, the wheel zooms."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from html import escape
from pathlib import Path

from toolchain.artifacts import place
from toolchain.picture.boxes import Diagram, diagram
from toolchain.picture.svg import STYLE, drawing, group_colours, render_svg
from toolchain.program.channels import Analysis
from toolchain.values import Channels


def draw(analysis: Analysis, title: str, path: Path) -> None:
    """Write the picture of an analysed network to `path`, in the form its ending (.svg or .html) names.

    Raises:
        InputError: the file cannot be written.
    """
    render = render_page if path.suffix.lower() == ".html" else render_svg
    text = render(diagram(analysis), analysis.channels, title)
    place(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def render_page(picture: Diagram, channels: Channels, title: str) -> str:
    """The whole page; it loads nothing from elsewhere."""
    files = importlib.resources.files(__package__)
    style = (files / "page.css").read_text(encoding="utf-8")
    script = (files / "page.js").read_text(encoding="utf-8")
    colours = group_colours(picture, len(channels.groups))
    drawn = drawing(picture, channels, colours)
    size = f"0 0 {drawn.width:.0f} {drawn.height:.0f}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}{style}</style></head>\n<body>\n"
        f"<aside><h1>{escape(title)}</h1>"
        '<input id="search" type="search" placeholder="find a layer, operator or group"'
        ' aria-label="find a layer, operator or group"><p id="found"></p>'
        f'<ul id="groups">{_legend(channels, colours)}</ul>'
        '<p class="key"><svg width="18" height="14"><rect width="18" height="14" fill="url(#stays)"/></svg>'
        ' stays as it is (why: hover)</p><pre id="told"></pre>'
        '<p class="help">Hover: one group. Click: keep it. Wheel: zoom. Drag: move. '
        '<button id="whole">whole</button></p></aside>\n'
        f'<main><svg class="network" id="network" viewBox="{size}" data-size="{size}" role="img"'
        f' aria-label="{escape(title)}">\n{drawn.body}\n</svg></main>\n'
        f"<script>\n{script}</script>\n</body></html>\n"
    )


def _legend(channels: Channels, colours: Sequence[str]) -> str:
    rows = []
    for number, group in enumerate(channels.groups):
        title = f' title="{escape(group.note)}"' if group.note else ""
        rows.append(
            f'<li data-group="{number}" tabindex="0"{title}><i style="background:{colours[number]}"></i>'
            f"<b>{number + 1}</b> <span>{escape(group.name)}{' *' if group.note else ''}</span>"
            f"<em>{group.size}</em></li>"
        )
    return "".join(rows)
