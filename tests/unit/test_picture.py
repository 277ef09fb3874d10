"""The picture of a network: complete, readable, and saying what the analysis says."""

import json
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.networks import TOPOLOGIES
from tests.unit.test_program_traps import odd
from toolchain import cli
from toolchain.picture.boxes import Box, Diagram, diagram
from toolchain.picture.layout import BETWEEN, layout
from toolchain.picture.page import draw, render_page
from toolchain.picture.svg import COLOURS, group_colours, render_svg
from toolchain.program.capture import capture, save_program
from toolchain.program.channels import examine
from toolchain.program.cost import layers

SVG = "{http://www.w3.org/2000/svg}"


def pictured(network, shape):
    program = capture(network.eval(), (torch.randn(2, *shape),), name="net")
    analysis = examine(program)
    return program, analysis, diagram(analysis)


def plain(text):
    return text.replace("\N{MULTIPLICATION SIGN}", "x").replace(" \N{MIDDLE DOT} ", ", ")


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_layer_and_group_is_shown(name):
    network = TOPOLOGIES[name]()
    program, analysis, picture = pictured(network, network.shape)
    told = [op.split(":")[0] for box in picture.boxes for op in box.operators]
    assert len(told) == len(set(told))
    assert {layer.node for layer in layers(program)} <= set(told)
    shown = {group for box in picture.boxes for group, _ in box.width if group >= 0}
    assert shown == set(range(len(analysis.channels.groups)))
    root = ElementTree.fromstring(render_svg(picture, analysis.channels, name))
    boxes = [g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("box")]
    assert len(boxes) == len(picture.boxes)
    page = render_page(picture, analysis.channels, name)
    assert page.count('class="box') == len(boxes)
    assert not re.search(r"(src|href)=|@import|url\((?!#)|https?:", page)


def test_a_norm_and_activation_belong_to_their_layer():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, stride=2))
    _, _, picture = pictured(network, (3, 9, 9))
    assert [(box.title, plain(box.detail), plain(box.shape)) for box in picture.boxes] == [
        ("input_1", "input", "3 x 9 x 9"),
        ("0", "conv 3x3, bn, relu", "8 x 7 x 7"),
        ("3", "conv 1x1 /2", "4 x 4 x 4"),
        ("output", "output", ""),
    ]
    assert picture.arrows == ((0, 1), (1, 2), (2, 3))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 9, 1), nn.Conv2d(9, 6, 1)

    def forward(self, x):
        x = self.stem(x)
        return odd(x + self.b(torch.relu(self.a(torch.relu(x)))))


def test_an_addition_has_two_arrows_and_what_has_no_rule_is_marked():
    _, analysis, picture = pictured(Residual(), (3, 5, 5))
    titles = [box.title for box in picture.boxes]
    into_sum = {titles[a] for a, b in picture.arrows if titles[b] == "add"}
    assert into_sum == {"stem", "b"}
    assert picture.boxes[titles.index("a")].detail.startswith("relu ")
    odd = picture.boxes[titles.index("odd")]
    assert odd.unknown == ("edgefit_tests.odd.default",)
    stem = picture.boxes[titles.index("stem")]
    assert stem.width == ((-1, 6),)
    assert stem.reasons == ("odd (edgefit_tests.odd.default) has no rule",)
    svg = render_svg(picture, analysis.channels, "net")
    assert "6 positions stay: odd (edgefit_tests.odd.default) has no rule" in svg
    assert svg.count('class="box unknown"') == 1


def test_a_concatenation_shows_each_share():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.c(torch.cat([self.a(x), self.b(x)], 1))

    _, analysis, picture = pictured(Joined(), (3, 5, 5))
    joined = next(box for box in picture.boxes if box.title == "cat")
    sizes = {analysis.channels.groups[group].name: count for group, count in joined.width}
    assert sizes == {"a": 6, "b": 2}


class Parted(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.sizes, self.a = sizes, nn.Conv2d(3, sum(sizes), 1)
        self.heads = nn.ModuleList(nn.Conv2d(size, 2, 1) for size in sizes)

    def forward(self, x):
        return tuple(f(p) for f, p in zip(self.heads, self.a(x).split(self.sizes, 1), strict=True))


@pytest.mark.parametrize(("sizes", "said"), [((4, 4, 4), "3 of 4 x 5 x 5"), ((4, 2), "4 x 5 x 5, 2 x 5 x 5")])
def test_parts_of_a_split_have_shapes(sizes, said):
    _, _, picture = pictured(Parted(*sizes), (3, 5, 5))
    assert next(plain(box.shape) for box in picture.boxes if box.title == "a") == said


def grid(count, step):
    """A chain with an arrow over `step` boxes from every third one."""
    skips = [(i, i + step) for i in range(0, count - step, 3)]
    return sorted({(i, i + 1) for i in range(count - 1)} | set(skips))


@pytest.mark.parametrize(("count", "step"), [(40, 4), (40, 17), (3000, 6)])
def test_boxes_keep_their_distance_and_lines_run_one_row_down(count, step):
    widths = [60.0 + 30 * (i % 5) for i in range(count)]
    arrows = grid(count, step)
    found = layout(widths, arrows)
    assert [p.box for p in found.places[:count]] == list(range(count))
    assert all(found.places[b].row == found.places[a].row + 1 for a, b in found.lines)
    reach = {}
    for a, b in sorted(found.lines, key=lambda line: found.places[line[0]].row, reverse=True):
        box = found.places[b].box
        reach.setdefault(a, set()).update({box} if box is not None else reach[b])
    assert {(a, b) for a in range(count) for b in reach.get(a, ())} == set(arrows)
    rows = {}
    for number, place in enumerate(found.places):
        half = widths[number] / 2 if place.box is not None else 0.0
        rows.setdefault(place.row, []).append((place.x - half, place.x + half))
    for spans in rows.values():
        spans.sort()
        assert all(b[0] - a[1] >= BETWEEN - 1e-6 for a, b in pairwise(spans))
        assert spans[0][0] >= -1e-6
        assert spans[-1][1] <= found.width + 1e-6


def test_groups_seen_together_differ_in_colour():
    boxes = [Box(title=str(i), detail="", shape="", width=((0, 4), (1 + i, 4))) for i in range(30)]
    colours = group_colours(Diagram(boxes=tuple(boxes), arrows=()), 31)
    assert colours.count(colours[0]) == 1, "the trunk's colour is its own"
    assert all(a != b for a, b in pairwise(colours))
    crowd = Box(title="all", detail="", shape="", width=tuple((i, 1) for i in range(24)))
    many = group_colours(Diagram(boxes=(crowd,), arrows=()), 24)
    assert {many.count(colour) for colour in COLOURS} == {3}


def test_dark_text_is_readable_on_every_colour():
    """Contrast of #1a1a1a by WCAG 2: 4.5 is asked for text."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in COLOURS:
        assert (luminance(colour) + 0.05) / (luminance("#1a1a1a") + 0.05) > 4.5


def test_names_are_escaped(tmp_path):
    _, analysis, _ = pictured(Residual(), (3, 5, 5))
    for ending in ("svg", "html"):
        path = tmp_path / f"p.{ending}"
        draw(analysis, "<script>&", path)
        assert "&lt;script&gt;&amp;" in path.read_text(encoding="utf-8")


def test_the_command_writes_the_picture_and_names_what_has_no_rule(tmp_path, capsys):
    program = capture(Residual().eval(), (torch.randn(2, 3, 5, 5),), name="net")
    save_program(program, tmp_path / "net.pt2")
    assert cli.main(["inspect", str(tmp_path / "net.pt2"), "--picture", str(tmp_path / "net.svg")]) == 0
    text = capsys.readouterr().out
    assert "operators without a rule" in text
    assert "edgefit_tests.odd.default  1" in text
    assert f"picture: {tmp_path / 'net.svg'}" in text
    ElementTree.parse(tmp_path / "net.svg")
    assert cli.main(["inspect", str(tmp_path / "net.pt2"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["unknown"], found["picture"]) == ({"edgefit_tests.odd.default": 1}, None)


@pytest.mark.parametrize(
    ("name", "code", "said"), [("p.png", 2, "neither in .svg nor in .html"), ("no/p.svg", 2, "folder")]
)
def test_a_picture_that_cannot_be_written_is_refused(name, code, said, tmp_path, capsys):
    program = capture(Residual().eval(), (torch.randn(2, 3, 5, 5),), name="net")
    save_program(program, tmp_path / "net.pt2")
    assert cli.main(["inspect", str(tmp_path / "net.pt2"), "--picture", str(tmp_path / name)]) == code
    assert said in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.pt2"]
