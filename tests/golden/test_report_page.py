"""The report's page and files: well-formed, self-contained, faithful to the record."""

import copy
import json
import re
from xml.etree import ElementTree

import pytest
import sample_record

from toolchain.errors import InputError
from toolchain.report.folder import write_reports
from toolchain.report.markdown_text import render_markdown
from toolchain.report.page import render_page
from toolchain.report.record import (
    chosen_measurement,
    read_record,
    reference_measurement,
    write_record,
)
from toolchain.report.summary import render_summary

VARIANTS = {
    "compress": lambda: sample_record.RECORD,
    "no data": sample_record.without_data,
    "bench": sample_record.bench,
    "plan": sample_record.plan,
    "failed": sample_record.failed,
    "replayed": sample_record.replayed,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_page_is_well_formed_and_loads_nothing(variant):
    page = render_page(VARIANTS[variant]())
    body = page[page.index("<body>") : page.index("</html>")]
    ElementTree.fromstring(body)
    assert not re.search(r"<script|<link|<img|@import|url\(|https?://", page)


def test_page_shows_the_verdict_before_anything_else():
    page = render_page(sample_record.failed())
    assert page.index("INCONCLUSIVE") < page.index("<h1>")
    assert "1 CHECK FAILED" in page


def test_blocks_left_out_are_named_in_every_form():
    said = "2 residual blocks left out whole: layer1.2, layer2.1"
    record = sample_record.RECORD
    assert all(said in form(record) for form in (render_summary, render_markdown, render_page))
    record = copy.deepcopy(record)
    record["plan"]["dropped"] = []
    assert all("left out" not in form(record) for form in (render_summary, render_markdown, render_page))


def test_markup_in_names_is_escaped():
    record = copy.deepcopy(sample_record.RECORD)
    record["model"]["name"] = "<script>alert(1)</script>"
    record["notes"] = ["a <b> & c"]
    record["plan"]["widths"][0]["layer"] = "<i>"
    page = render_page(record)
    assert "<script>" not in page
    assert "a &lt;b&gt; &amp; c" in page
    ElementTree.fromstring(page[page.index("<body>") : page.index("</html>")])


def test_pipes_in_names_do_not_break_markdown_tables():
    record = copy.deepcopy(sample_record.RECORD)
    record["checks"][0]["detail"] = "a|b\nc"
    assert "a\\|b c |" in render_markdown(record)


def test_unmeasured_is_said_and_no_number_takes_its_place():
    record = sample_record.without_data()
    text = render_summary(record)
    assert re.search(r"^metric +not measured +not measured$", text, re.MULTILINE)
    assert "top1" not in text
    assert "Accuracy against latency" not in render_page(record)


def test_original_of_the_comparison_is_the_interleaved_one():
    record = sample_record.RECORD
    assert reference_measurement(record)["label"] == "original"
    assert chosen_measurement(record)["label"] == "slim int8"


def test_unpruned_result_keeps_original_and_result_apart():
    record = copy.deepcopy(sample_record.RECORD)
    for entry, original in zip(record["result"]["artifacts"], record["baseline"]["artifacts"], strict=False):
        entry["sha256"] = original["sha256"]
    first, _, last = record["result"]["measurements"]
    record["result"]["measurements"] = [first, {**first, "p50_ms": 0.61, "label": "same file again"}, last]
    last["sha256"] = sample_record.INT8
    assert reference_measurement(record)["p50_ms"] == first["p50_ms"]
    assert chosen_measurement(record)["p50_ms"] == last["p50_ms"]


def test_samples_beyond_the_edge_are_counted_not_dropped_in_silence():
    record = copy.deepcopy(sample_record.RECORD)
    record["result"]["measurements"][2]["samples_ms"][0][0] = 50.0
    assert "1 beyond the right edge" in render_page(record)


def test_constant_samples_and_a_single_layer_can_be_drawn():
    record = sample_record.bench()
    for entry in record["baseline"]["measurements"]:
        entry["samples_ms"] = [[1.0, 1.0]]
    ElementTree.fromstring((page := render_page(record))[page.index("<body>") : page.index("</html>")])


def test_record_survives_the_round_trip(tmp_path):
    write_reports(sample_record.RECORD, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    assert read_record(tmp_path / "report.json") == sample_record.RECORD


def test_a_failed_write_leaves_the_old_report(tmp_path):
    path = tmp_path / "report.json"
    write_record(sample_record.RECORD, path)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record({**sample_record.RECORD, "timings": {"export": float("nan")}}, path)
    assert read_record(path) == sample_record.RECORD
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a report"),
        (json.dumps({"schema": "edgefit.report/99"}), "schema edgefit.report/99"),
        (None, "cannot read"),
    ],
)
def test_foreign_and_newer_files_are_refused(tmp_path, content, message):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_record(path)
