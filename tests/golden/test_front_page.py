"""The page of several cases: well-formed, self-contained; predictions are drawn apart from measurements."""

import copy
import re
from xml.etree import ElementTree

import pytest
import sample_front
import sample_record

from toolchain.report import front_record
from toolchain.report.folder import FRONT_FILES, write_front
from toolchain.report.front_page import render_front_page

VARIANTS = {name: getattr(sample_front, name) for name in ("front", "interrupted", "plans")}


def pictures(page):
    """The page's pictures by their headings."""
    return dict(re.findall(r"<h2>([^<]*)</h2>(<svg.*?</svg>)", page, re.DOTALL))


@pytest.mark.parametrize("variant", VARIANTS)
def test_page_is_well_formed_and_loads_nothing(variant):
    page = render_front_page(VARIANTS[variant]())
    ElementTree.fromstring(page[page.index("<body>") : page.index("</html>")])
    assert not re.search(r"<script|<link|<img|@import|url\(|https?://", page)


def test_each_target_has_a_picture_and_only_there_its_points_and_budgets():
    shown = pictures(render_front_page(sample_front.front()))
    host, phone = shown.values()
    assert list(shown) == [
        "Accuracy against latency on host",
        "Accuracy against latency on iphone:iphone-13",
    ]
    assert (host.count("<circle"), phone.count("<circle")) == (3, 2)
    assert re.findall(r"budget ([\d.]+) ms", host) == ["0.02", "0.25", "0.3"]
    assert re.findall(r"budget ([\d.]+) ms", phone) == ["0.3", "0.7"]


def test_predictions_are_hollow_and_named_measurements_are_neither():
    host, phone = pictures(page := render_front_page(sample_front.front())).values()
    assert host.count("predicted") == 0
    assert phone.count('class="dot before predicted"') == phone.count('class="dot after predicted"') == 1
    assert ">predicted latency (ms)<" in phone
    assert "predicted, not verified on the device" in page
    assert "predicted 0.620 ms (90 %: 0.510-0.770)" in page


def test_without_a_metric_parameters_take_its_place():
    record = sample_front.front()
    for entry in (*record["originals"], *record["cases"]):
        entry["metric"] = None
    host, _ = pictures(render_front_page(record)).items()
    assert host[0] == "Parameters against latency on host"
    assert host[1].count("<circle") == 4, "the best plan of the budget not reached has no metric, but a size"


def test_without_any_latency_there_is_a_table_and_no_picture():
    record = sample_front.plans()
    for entry in (*record["originals"], *record["cases"]):
        entry["latency"] = None
    page = render_front_page(record)
    assert pictures(page) == {}
    assert "not measured" in page


def test_an_estimate_never_stands_where_a_measurement_is():
    entry = front_record.done(sample_front.waiting("host", ms=0.3), sample_record.RECORD)
    assert entry["predicted"] is None
    assert entry["latency"]["p50_ms"] == 0.28
    assert entry["faster"] == pytest.approx(0.606 / 0.28)
    unmeasured = sample_record.plan()
    unmeasured["rounds"] = []
    entry = front_record.done(sample_front.waiting("host", ms=0.3), unmeasured)
    assert entry["latency"] is None
    assert entry["predicted"] == {"ms": 0.281, "low_ms": None, "high_ms": None}
    assert front_record.latency_text(entry) == "predicted 0.281 ms"


def test_a_plan_that_changes_nothing_was_measured_as_the_original():
    record = sample_record.plan()
    record["rounds"] = []
    record["plan"].update(dropped=[], widths=[{"layer": "a", "before": 4, "after": 4}], estimate_ms=None)
    entry = front_record.done(sample_front.waiting("host", ms=0.5), record)
    assert entry["latency"]["p50_ms"] == 0.342, "by int8 alone"


def test_exit_code_is_the_highest_and_unknown_while_cases_wait():
    assert sample_front.front()["exit_code"] == 5
    assert sample_front.interrupted()["exit_code"] is None


def test_markup_in_names_is_escaped():
    record = copy.deepcopy(sample_front.front())
    record["model"]["name"] = "<script>alert(1)</script>"
    page = render_front_page(record)
    assert "<script>" not in page
    ElementTree.fromstring(page[page.index("<body>") : page.index("</html>")])


def test_files_of_the_front_appear_whole(tmp_path):
    write_front(sample_front.front(), tmp_path / "front")
    assert sorted(p.name for p in (tmp_path / "front").iterdir()) == sorted(FRONT_FILES)
