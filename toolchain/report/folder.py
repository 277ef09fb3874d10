"""The report in its three forms, side by side: JSON, Markdown, HTML; and that of several cases likewise."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from toolchain.report.front_page import render_front_page
from toolchain.report.front_text import render_front_markdown
from toolchain.report.markdown_text import render_markdown
from toolchain.report.page import render_page
from toolchain.report.record import Record, write_record, write_text
from toolchain.report.saliency import saliency

INPUTS: Final = "inputs.svg"
FRONT_FILES: Final = ("front.json", "front.md", "front.html")


def write_reports(record: Record, folder: Path) -> None:
    """Write all three into `folder`, which exists. OSError propagates: the caller knows what it means.

    And a picture of what of the input is kept, where not all of it is.
    """
    write_record(record, folder / "report.json")
    write_text(folder / "report.md", render_markdown(record))
    write_text(folder / "report.html", render_page(record))
    view = (record["plan"] or {}).get("inputs")
    if view is not None and (view["nats"] or view["block_nats"]):
        write_text(folder / INPUTS, saliency(view, alone=True))


def write_front(record: Record, folder: Path) -> None:
    """Write the front of several cases into `folder`, which is made. OSError propagates."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_markdown, as_page = (folder / name for name in FRONT_FILES)
    write_record(record, as_json)
    write_text(as_markdown, render_front_markdown(record))
    write_text(as_page, render_front_page(record))
