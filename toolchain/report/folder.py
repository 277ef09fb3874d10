"""The report in its three forms, side by side: report.json, report.md, report.html."""

from __future__ import annotations

from pathlib import Path

from toolchain.report.markdown_text import render_markdown
from toolchain.report.page import render_page
from toolchain.report.record import Record, write_record, write_text


def write_reports(record: Record, folder: Path) -> None:
    """Write all three into `folder`, which exists. OSError propagates: the caller knows what it means."""
    write_record(record, folder / "report.json")
    write_text(folder / "report.md", render_markdown(record))
    write_text(folder / "report.html", render_page(record))
