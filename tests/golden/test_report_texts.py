"""The report's texts, word for word, from a fixed record. EDGEFIT_RENEW_GOLDEN=1 renews them."""

import os
from pathlib import Path

import pytest
import sample_record

from toolchain.report.markdown_text import render_markdown
from toolchain.report.summary import render_summary

TEXTS = Path(__file__).parent / "texts"
CASES = {
    "compress.txt": lambda: render_summary(sample_record.RECORD, out="resnet20-compressed"),
    "no_data.txt": lambda: render_summary(sample_record.without_data(), out="out"),
    "bench.txt": lambda: render_summary(sample_record.bench()),
    "plan.txt": lambda: render_summary(sample_record.plan(), out="plan"),
    "failed.txt": lambda: render_summary(sample_record.failed(), out="out"),
    "compress.md": lambda: render_markdown(sample_record.RECORD),
    "bench.md": lambda: render_markdown(sample_record.bench()),
}


@pytest.mark.parametrize("name", CASES)
def test_text_is_as_reviewed(name):
    text = CASES[name]()
    path = TEXTS / name
    if os.environ.get("EDGEFIT_RENEW_GOLDEN"):
        TEXTS.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
