"""The report's pictures for any numbers that can occur: drawable, inside the frame, with readable axes."""

import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.report import plots

MS = st.floats(1e-4, 1e5)


def coordinates(svg, names):
    return [float(v) for v in re.findall(rf'(?:{names})="(-?[\d.]+)"', svg)]


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e6))
def test_axes_have_a_readable_number_of_ticks_in_order(low, span):
    axis = plots.Axis(low=low, high=low + max(span, abs(low) * 1e-3), start=0, end=100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 11
    assert list(ticks) == sorted(set(ticks))
    assert all(-1e-3 <= axis.at(tick) <= 100.001 for tick in ticks)


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.tuples(MS, st.floats(0, 0.2), st.floats(0, 100)), min_size=1, max_size=9),
    budgets_ms=st.lists(MS, max_size=4),
)
def test_scatter_shows_every_point_within_the_frame(times, budgets_ms):
    points = [
        plots.Point(
            label=f"<{i}>", ms=ms, low_ms=ms * (1 - w), high_ms=ms * (1 + w), metric=metric, style="after"
        )
        for i, (ms, w, metric) in enumerate(times)
    ]
    svg = plots.scatter(points, budgets_ms=budgets_ms, y_title="top1")
    ElementTree.fromstring(svg)
    assert svg.count("<circle") == len(points)
    assert svg.count('class="budget"') == len(budgets_ms)
    assert all(plots.LEFT <= x <= plots.WIDTH - plots.RIGHT for x in coordinates(svg, "x1|x2"))
    assert all(plots.LEFT <= x <= plots.WIDTH - plots.RIGHT for x in coordinates(svg, "cx"))
    assert all(0 <= y <= plots.HEIGHT - plots.BOTTOM for y in coordinates(svg, "cy"))


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(
        st.tuples(st.floats(0.01, 1), st.floats(0, 100), st.integers(5, 30)), min_size=2, max_size=8
    )
)
def test_labels_of_the_scatter_keep_apart_and_inside(times):
    points = [
        plots.Point(label="x" * length, ms=ms, low_ms=ms, high_ms=ms, metric=metric, style="other")
        for ms, metric, length in times
    ]
    svg = plots.scatter(points, budgets_ms=(), y_title="top1")
    found = re.findall(r'class="label" x="([\d.]+)" y="([\d.]+)"[^>]*?(?:text-anchor="(\w+)")?>(x+)<', svg)
    boxes = []
    for x, y, anchor, label in found:
        length = plots.CHARACTER * len(label)
        boxes.append((float(x) - length * (anchor == "end"), length, float(y)))
    assert len(boxes) == len(points)
    for i, (left, length, y) in enumerate(boxes):
        assert 0 < y < plots.HEIGHT - plots.BOTTOM
        assert left + length <= plots.WIDTH
        for other, width, line in boxes[:i]:
            assert abs(y - line) > 12 or left >= other + width - 0.2 or other >= left + length - 0.2


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(MS, min_size=1, max_size=60),
    after=st.lists(MS, min_size=1, max_size=60),
    budget_ms=st.none() | MS,
)
def test_distribution_accounts_for_every_sample(before, after, budget_ms):
    svg = plots.distribution({"original": before, "result": after}, budget_ms=budget_ms)
    ElementTree.fromstring(svg)
    for name, values in (("original", before), ("result", after)):
        assert f"{name}: {len(values)} runs" in svg
    heights = [float(y) for y in re.findall(r"V(-?[\d.]+)", svg)]
    assert all(-0.1 <= y <= plots.HEIGHT - plots.BOTTOM + 0.1 for y in heights)


@settings(max_examples=40, deadline=None)
@given(
    layers=st.lists(
        st.tuples(st.text(max_size=60), st.integers(1, 4096), st.floats(0, 1)), min_size=1, max_size=90
    )
)
def test_widths_keep_before_and_after_in_proportion(layers):
    rows = [{"layer": name, "before": n, "after": max(1, int(n * share))} for name, n, share in layers]
    svg = plots.widths(rows)
    bars = re.findall(r'<rect class="(?:area before|bar after)" x="[\d.]+" y="[\d.]+" width="([\d.]+)"', svg)
    for row, before, after in zip(rows, bars[::2], bars[1::2], strict=True):
        assert abs(float(after) * row["before"] - float(before) * row["after"]) <= 0.11 * row["before"]
