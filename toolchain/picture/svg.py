"""The picture of a network as SVG: boxes from top to bottom, coloured by channel group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from toolchain.picture.boxes import Box, Diagram
from toolchain.picture.layout import Layout, layout
from toolchain.values import Channels

COLOURS: Final = ("#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00")
"""The light qualitative scheme of Paul Tol (SRON/EPS/TN/09-002): made for dark text on it, told apart by
colour-blind readers. Groups are numbered too, since there are more groups than colours."""
PLAIN: Final = "#eeeeee"
LINE, PAD, CHARACTER, BOLD = 15, 7, 6.2, 7.3
"""Height of a line of text, space around text, mean widths of characters, in pixels."""
NARROWEST, WIDEST, GAP, MARGIN = 96.0, 250.0, 30, 24
LEGEND: Final = 300
"""Width of the column with the names of the groups."""
LEGEND_LINE: Final = 20
STYLE: Final = """\
svg.network{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#1a1a1a;background:#fff}
.network text{fill:#1a1a1a}.network .name{font-weight:600;font-size:11.5px}
.network .outline{fill:none;stroke:#555;stroke-width:1}
.network .layer .outline{stroke:#1a1a1a;stroke-width:1.6}
.network .unknown .outline{stroke:#b00020;stroke-width:2.5;stroke-dasharray:5 3}
.network .arrow{fill:none;stroke:#777;stroke-width:1.2}.network .head{fill:#777}
.network .badge{font-weight:600;text-anchor:end}
"""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The picture's inside and its size in pixels."""

    body: str
    width: float
    height: float


def render_svg(picture: Diagram, channels: Channels, title: str) -> str:
    """The whole picture as a file of its own, with its legend on the left."""
    colours = group_colours(picture, len(channels.groups))
    drawn = drawing(picture, channels, colours)
    rows = [(f"{i + 1}", g.name, f"{g.size}", colours[i]) for i, g in enumerate(channels.groups)]
    legend = [
        f'<text class="name" x="{MARGIN}" y="{MARGIN + 10}" font-size="14">{escape(title)}</text>',
        *_legend([*rows, ("", "stays as it is", "", "url(#stays)"), ("", "carries no channels", "", PLAIN)]),
    ]
    height = max(drawn.height, MARGIN * 3 + LEGEND_LINE * (len(rows) + 3))
    width = drawn.width + LEGEND
    return (
        f'<svg class="network" xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{"".join(legend)}'
        f'<g transform="translate({LEGEND} 0)">\n{drawn.body}\n</g>\n</svg>\n'
    )


def drawing(picture: Diagram, channels: Channels, colours: Sequence[str]) -> Drawing:
    """Boxes and arrows without frame or legend."""
    texts = [_lines(box) for box in picture.boxes]
    widths = [_text_width(b, t) for b, t in zip(picture.boxes, texts, strict=True)]
    found = layout(widths, picture.arrows)
    tops, heights = _rows(found, texts)
    body = [_DEFINITIONS, *_arrows(found, tops, heights, texts)]
    for place in found.places:
        if place.box is not None:
            box, lines = picture.boxes[place.box], texts[place.box]
            x, y = MARGIN + place.x - widths[place.box] / 2, tops[place.row]
            body.append(_box(box, lines, channels, colours, x, y, widths[place.box]))
    height = (tops[-1] + heights[-1] if tops else 0) + MARGIN
    return Drawing(body="\n".join(body), width=found.width + 2 * MARGIN, height=height)


def group_colours(picture: Diagram, groups: int) -> list[str]:
    """A colour for each group: of those free where the group begins, the one longest unused.

    A colour is free when no group that has it is seen further down, so that neighbours differ and a trunk
    keeps its colour for itself; where none is free, the one given longest ago is used.
    """
    first, last = [len(picture.boxes)] * groups, [-1] * groups
    for number, box in enumerate(picture.boxes):
        for group, _ in box.width:
            if group >= 0:
                first[group], last[group] = min(first[group], number), max(last[group], number)
    until, given = dict.fromkeys(COLOURS, -1), dict.fromkeys(COLOURS, -1)
    chosen = [COLOURS[0]] * groups
    for turn, group in enumerate(sorted(range(groups), key=lambda g: first[g])):
        free = [c for c in COLOURS if until[c] < first[group]]
        colour = min(free, key=until.__getitem__) if free else min(COLOURS, key=given.__getitem__)
        chosen[group], given[colour] = colour, turn
        until[colour] = max(until[colour], last[group])
    return chosen


_DEFINITIONS: Final = (
    '<defs><pattern id="stays" width="7" height="7" patternUnits="userSpaceOnUse"'
    ' patternTransform="rotate(45)"><rect width="7" height="7" fill="#eeeeee"/>'
    '<rect width="1.6" height="7" fill="#b5b5b5"/></pattern>'
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6.5" markerHeight="6.5"'
    ' orient="auto"><path class="head" d="M0,0.6L8,4L0,7.4Z"/></marker></defs>'
)


def _lines(box: Box) -> list[str]:
    """Name, operators, shape; long ones are cut where they say least."""
    most = int((WIDEST - 2 * PAD) / CHARACTER)
    front = int((WIDEST - 2 * PAD) / BOLD)
    lines = [_shortened(box.title, front, front=True), _shortened(box.detail, most), box.shape]
    return [lines[0], *(line for line in lines[1:] if line)]


def _badge(box: Box) -> str:
    """The numbers of the box's groups, from 1."""
    groups = [group + 1 for group, _ in box.width if group >= 0]
    if len(groups) > 4:
        return f"{len(groups)} groups"
    return " ".join(f"#{group}" for group in groups)


def _shortened(text: str, most: int, *, front: bool = False) -> str:
    if len(text) <= most:
        return text
    return f"...{text[3 - most :]}" if front else f"{text[: most - 3]}..."


def _text_width(box: Box, lines: Sequence[str]) -> float:
    last = len(lines[-1]) * CHARACTER + (len(_badge(box)) + 2) * BOLD
    longest = max(len(lines[0]) * BOLD, last, *(len(line) * CHARACTER for line in lines))
    return min(max(longest + 2 * PAD, NARROWEST), WIDEST)


def _rows(found: Layout, texts: Sequence[Sequence[str]]) -> tuple[list[float], list[float]]:
    """The top and height of every row."""
    heights: dict[int, float] = {}
    for place in found.places:
        own = 0.0 if place.box is None else _height(texts[place.box])
        heights[place.row] = max(heights.get(place.row, 0.0), own)
    tops, y = [], float(MARGIN)
    for row in range(len(heights)):
        tops.append(y)
        y += heights[row] + GAP
    return tops, [heights[row] for row in range(len(heights))]


def _height(lines: Sequence[str]) -> float:
    return len(lines) * LINE + PAD


def _arrows(
    found: Layout, tops: Sequence[float], heights: Sequence[float], texts: Sequence[Sequence[str]]
) -> Iterator[str]:
    """Curves from row to row; a lane runs straight through the rows it passes."""
    for start, end in found.lines:
        a, b = found.places[start], found.places[end]
        begin = tops[a.row] + (heights[a.row] if a.box is None else _height(texts[a.box]))
        x1, x2, leave, y2 = MARGIN + a.x, MARGIN + b.x, tops[a.row] + heights[a.row], tops[b.row]
        middle = (leave + y2) / 2
        path = f"M{x1:.1f},{begin:.1f}V{leave:.1f}"
        path += f"C{x1:.1f},{middle:.1f} {x2:.1f},{middle:.1f} {x2:.1f},{y2:.1f}"
        tail = f"V{y2 + heights[b.row]:.1f}" if b.box is None else ""
        head = "" if b.box is None else ' marker-end="url(#head)"'
        yield f'<path class="arrow" d="{path}{tail}"{head}/>'


def _box(
    box: Box,
    lines: Sequence[str],
    channels: Channels,
    colours: Sequence[str],
    x: float,
    y: float,
    width: float,
) -> str:
    height = _height(lines)
    groups = " ".join(str(group) for group, _ in box.width if group >= 0)
    style = "box" + (" layer" if box.layer else "") + (" unknown" if box.unknown else "")
    inside = [f"<title>{escape(tooltip(box, channels))}</title>", *_bands(box, colours, width, height)]
    inside.append(f'<rect class="outline" width="{width:.1f}" height="{height:.1f}" rx="4"/>')
    for number, line in enumerate(lines):
        name, base = ' class="name"' if number == 0 else "", PAD / 2 + LINE * (number + 0.75)
        inside.append(f'<text{name} x="{PAD}" y="{base:.1f}">{escape(line)}</text>')
    inside.append(f'<text class="badge" x="{width - PAD:.1f}" y="{height - PAD:.1f}">{_badge(box)}</text>')
    return (
        f'<g class="{style}" data-groups="{groups}" data-words="{escape(_words(box))}"'
        f' transform="translate({x:.1f} {y:.1f})">{"".join(inside)}</g>'
    )


def _bands(box: Box, colours: Sequence[str], width: float, height: float) -> Iterator[str]:
    """The background: a band for each group, as wide as its share of the channels."""
    total, at = sum(count for _, count in box.width), 0.0
    if not total:
        yield f'<rect width="{width:.1f}" height="{height:.1f}" rx="4" fill="{PLAIN}"/>'
    for group, count in sorted(box.width, key=lambda part: (part[0] < 0, part[0])):
        share = width * count / total
        fill = "url(#stays)" if group < 0 else colours[group]
        corner = ' rx="4"' if len(box.width) == 1 else ""
        yield f'<rect x="{at:.1f}" width="{share:.1f}" height="{height:.1f}"{corner} fill="{fill}"/>'
        at += share


def tooltip(box: Box, channels: Channels) -> str:
    """Everything that is known of a box, a line each."""
    lines = [f"{box.title}  {box.shape}".rstrip()]
    for group, count in box.width:
        if group >= 0:
            known = channels.groups[group]
            note = f" ({known.note})" if known.note else ""
            lines.append(f"group {group + 1}, {known.name}: {count} of its positions{note}")
        else:
            lines.append(f"{count} positions stay: {'; '.join(box.reasons) or 'tied to what stays'}")
    lines += [f"no rule for {name}: its inputs stay as they are" for name in box.unknown]
    lines += list(box.operators)
    lines += [f"reads {name}" for name in box.parameters]
    return "\n".join(lines)


def _words(box: Box) -> str:
    """What the page's search looks through."""
    return " ".join((box.title, box.detail, *box.parameters)).lower()


def _legend(rows: Sequence[tuple[str, str, str, str]]) -> Iterator[str]:
    most = int((LEGEND - MARGIN - 120) / CHARACTER)
    for number, (badge, name, size, fill) in enumerate(rows):
        y = 2 * MARGIN + LEGEND_LINE * number
        shown = escape(_shortened(name, most, front=True))
        yield f'<rect x="{MARGIN}" y="{y}" width="16" height="14" rx="3" fill="{fill}" stroke="#555"/>'
        yield f'<text class="badge" x="{MARGIN + 46}" y="{y + 11}">{badge}</text>'
        yield f'<text x="{MARGIN + 54}" y="{y + 11}">{shown}</text>'
        yield f'<text text-anchor="end" x="{LEGEND - 34}" y="{y + 11}">{size}</text>'
