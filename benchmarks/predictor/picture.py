"""The results of the predictor's benchmark as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Record = Mapping[str, Sequence[Mapping[str, Any]]]
ASKED_MAPE, ASKED_RANK = 5.0, 0.97
SIDE, GAP = 220, 56


def markdown(record: Record) -> str:
    """One row a network, runtime and precision."""
    rows = [(name, entry) for name, entries in record.items() for entry in entries]
    good = [e for _, e in rows if e["mape_percent"] <= ASKED_MAPE and e["rank_correlation"] >= ASKED_RANK]
    conditions = rows[0][1]["conditions"]
    lines = [
        "# Predicted and measured latency of random pruned variants",
        "",
        f"{len(good)} of {len(rows)} with an error of at most {ASKED_MAPE:g} % on average and a rank"
        f" correlation of at least {ASKED_RANK:g}. Batch 1, one thread, {conditions['cpu']};"
        " the prediction knows layer timings, the measured original and one narrow network, no variant.",
        "",
        "| network | runtime | precision | variants | whole ms | smallest ms | mean error % | worst % |"
        " bias % | rank correlation |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {e['runtime']} | {e['precision']} | {len(e['measured_ms']) - 1} | {e['whole_ms']:.4g} |"
        f" {min(e['measured_ms']):.4g} | {e['mape_percent']:.1f} | {e['worst_percent']:.1f} |"
        f" {e['bias_percent']:+.1f} | {e['rank_correlation']:.3f} |"
        for name, e in rows
    ]
    return "\n".join(lines) + "\n"


def picture(record: Record) -> str:
    """Predicted over measured, both as shares of the whole network, a panel a network and combination."""
    columns = max(len(entries) for entries in record.values())
    width, height = columns * (SIDE + GAP) + GAP, len(record) * (SIDE + GAP) + GAP
    body = [
        part
        for row, (name, entries) in enumerate(record.items())
        for column, entry in enumerate(entries)
        for part in _panel(GAP + column * (SIDE + GAP), GAP + row * (SIDE + GAP), name, entry)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        ' font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(body)}</svg>\n'
    )


def _panel(left: int, top: int, name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    whole, bottom = entry["whole_ms"], top + SIDE
    most = max(1.0, *(ms / whole for ms in (*entry["measured_ms"], *entry["predicted_ms"])))
    scale = SIDE / (math.ceil(most * 10) / 10)
    yield f'<rect x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>'
    yield f'<path d="M{left} {bottom}L{left + SIDE} {top}" stroke="#999"/>'
    title = f"{name} {entry['runtime']} {entry['precision']}: {entry['mape_percent']:.1f} %"
    yield f'<text x="{left}" y="{top - 6}">{title}</text>'
    yield f'<text x="{left}" y="{bottom + 14}">measured, share of {whole:.3g} ms</text>'
    for actual, predicted in zip(entry["measured_ms"], entry["predicted_ms"], strict=True):
        x, y = left + actual / whole * scale, bottom - predicted / whole * scale
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#0b62a4" fill-opacity="0.6"/>'
