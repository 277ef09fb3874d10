"""The report's texts, word for word, from a fixed record. EDGEFIT_RENEW_GOLDEN=1 renews them."""

import os
from pathlib import Path

import pytest
import sample_front
import sample_record

from toolchain.report import words
from toolchain.report.front_text import render_front_markdown, render_front_summary
from toolchain.report.markdown_text import render_markdown
from toolchain.report.summary import render_summary

TEXTS = Path(__file__).parent / "texts"
CASES = {
    "compress.txt": lambda: render_summary(sample_record.RECORD, out="resnet20-compressed"),
    "no_data.txt": lambda: render_summary(sample_record.without_data(), out="out"),
    "bench.txt": lambda: render_summary(sample_record.bench()),
    "plan.txt": lambda: render_summary(sample_record.plan(), out="plan"),
    "replayed.txt": lambda: render_summary(sample_record.replayed(), out="out"),
    "failed.txt": lambda: render_summary(sample_record.failed(), out="out"),
    "compress.md": lambda: render_markdown(sample_record.RECORD),
    "stored.txt": lambda: render_summary(sample_record.stored(), out="out"),
    "stored.md": lambda: render_markdown(sample_record.stored()),
    "bench.md": lambda: render_markdown(sample_record.bench()),
    "front.txt": lambda: render_front_summary(sample_front.front(), out="front"),
    "front.md": lambda: render_front_markdown(sample_front.front()),
    "front_plans.txt": lambda: render_front_summary(sample_front.plans(), out="plans"),
    "front_interrupted.md": lambda: render_front_markdown(sample_front.interrupted()),
}


@pytest.mark.parametrize("name", CASES)
def test_text_is_as_reviewed(name):
    text = CASES[name]()
    path = TEXTS / name
    if os.environ.get("EDGEFIT_RENEW_GOLDEN"):
        TEXTS.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [
        (None, "not measured"),
        (0.02237, "0.0224 ms"),
        (0.3124, "0.312 ms"),
        (12.345, "12.35 ms"),
        (250.0, "250.0 ms"),
    ],
)
def test_milliseconds_show_three_digits_at_any_size(value_ms, text):
    assert words.milliseconds(value_ms) == text


def test_interval_is_as_precise_as_its_upper_end():
    assert words.span(0.0211, 0.0249) == "0.0211-0.0249"
    assert words.span(0.0999, 0.104) == "0.100-0.104"
    assert words.span(9.87, 10.12) == "9.87-10.12"
