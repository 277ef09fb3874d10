"""The exports as a markdown table: what was written, equal, small and quick, and why what failed did."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

TITLES: Final = {"onnx": "ONNX", "tflite": "TFLite", "coreml": "Core ML"}
KINDS: Final = {"original": "originals", "half": "half-pruned"}
KNOWN: Final = Path(__file__).parent / "exports_known.json"
_INTRODUCTION: Final = (
    "Times are processor time of one thread. A ratio is our time for the original over that of the bare "
    "exporter for the same network in the same process."
)
Results = Mapping[str, Any]


def markdown(record: Results, known: Sequence[Results] | None = None) -> str:
    """A summary, one table a format, every failure with its cause; `known` (exports_known.json) explains."""
    networks: Results = record["networks"]
    causes = json.loads(KNOWN.read_text()) if known is None else known
    done = {n: r for n, r in sorted(networks.items()) if "formats" in r}
    environment = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
    lines = [f"# Exports: {record['family']}", "", environment, "", _INTRODUCTION, ""]
    lines += [f"{len(done)} of {len(networks)} networks run.", ""]
    for format_name in TITLES:
        lines += _summary(format_name, done)
    for format_name, title in TITLES.items():
        rows = [_row(n, r["formats"][format_name]) for n, r in done.items() if r["formats"].get(format_name)]
        if rows:
            lines += ["", f"## {title}", "", *_head(format_name), *rows]
    failures = [_explained(*failure, causes) for failure in _failures(networks)]
    if failures:
        lines += ["", "## Failed", "", *failures]
    waiting = [f"- {n}: {r['reason']}" for n, r in sorted(networks.items()) if r["status"] == "not run"]
    if waiting:
        lines += ["", "## Not run", "", *waiting]
    return "\n".join(lines) + "\n"


def _summary(format_name: str, done: Results) -> Iterator[str]:
    """Counts of files and of passed checks, the worst parity, the median ratio of times and sizes."""
    entries = [r["formats"].get(format_name, {}) for r in done.values()]
    parts = []
    for kind, word in KINDS.items():
        tried = [e[kind] for e in entries if kind in e]
        written = [e for e in tried if e["status"] == "written"]
        good = sum(_passed(e) for e in written)
        part = f"{len(written)} of {len(tried)} {word} written, {good} passed their checks"
        values = [c["value"] for e in written for c in e["checks"] if c.get("value") is not None]
        parts.append(part + (f" (worst {max(values):.1e})" if values else ""))
    bare = [e["bare"] for e in entries if "bare" in e]
    parts.append(f"bare exporter {sum(e['status'] == 'written' for e in bare)} of {len(bare)}")
    ratios = [r for e in entries if (r := _ratio(e)) is not None]
    if ratios:
        wall = statistics.median(r for e in entries if (r := _ratio(e, "wall_s")) is not None)
        parts.append(
            f"median time {statistics.median(ratios):.2f}x the bare exporter's (wall clock {wall:.2f}x)"
        )
    yield f"- {TITLES[format_name]}: {'; '.join(parts)}."


def _head(format_name: str) -> tuple[str, str]:
    check = "weights" if format_name == "coreml" else "parity"
    names = ["network", "bare s", "original s", "ratio", "half s", "bare MB", "original MB", "half MB"]
    names += [f"original {check}", f"half {check}"]
    return f"| {' | '.join(names)} |", "|---" * len(names) + "|"


def _row(name: str, entry: Results) -> str:
    kinds = ("bare", *KINDS)
    seconds = [_cell(entry.get(kind), "cpu_s", 1.0) for kind in kinds]
    sizes = [_cell(entry.get(kind), "bytes", 1e-6) for kind in kinds]
    ratio = _ratio(entry)
    cells = [name, *seconds[:2], "-" if ratio is None else f"{ratio:.2f}", seconds[2], *sizes]
    return f"| {' | '.join([*cells, *(_verdict(entry.get(kind)) for kind in KINDS)])} |"


def _cell(entry: Results | None, key: str, factor: float) -> str:
    if entry is None:
        return "-"
    return f"{entry[key] * factor:.1f}" if key in entry else "failed"


def _verdict(entry: Results | None) -> str:
    """The deviation, marked where it is over its limit."""
    if entry is None or entry["status"] != "written":
        return "-"
    values = [c["value"] for c in entry["checks"] if c.get("value") is not None]
    text = f"{max(values):.1e}" if values else "no value"
    return text if _passed(entry) else f"FAIL {text}"


def _passed(entry: Results) -> bool:
    return all(c["status"] in ("pass", "not run") for c in entry["checks"])


def _ratio(entry: Results, clock: str = "cpu_s") -> float | None:
    """Our time for the original over the bare exporter's."""
    ours, bare = entry.get("original", {}), entry.get("bare", {})
    return float(ours[clock] / bare[clock]) if clock in ours and clock in bare else None


def _failures(networks: Results) -> Iterator[tuple[str, str, str, str]]:
    """(network, format, kind, cause) of what was not written, not equal, or not reached."""
    for name, found in sorted(networks.items()):
        if found["status"] == "unfinished":
            yield name, "all", "run", found["reason"]
        for format_name, entries in found.get("formats", {}).items():
            for kind, entry in entries.items():
                if entry["status"] != "written":
                    yield name, format_name, kind, entry["reason"]
                elif not _passed({"checks": [], **entry}):
                    bad = next(c for c in entry["checks"] if c["status"] not in ("pass", "not run"))
                    yield name, format_name, kind, f"{bad['name']}: {bad.get('value')} {bad['detail']}"


def _explained(name: str, format_name: str, kind: str, cause: str, known: Sequence[Results]) -> str:
    """One line: the cause as it was raised, and what is known of it."""
    line = f"- {name}, {TITLES.get(format_name, format_name)}, {kind}: {cause}"
    for entry in known:
        fits = re.fullmatch(entry["network"], name) and entry["format"] in (format_name, "all")
        if fits and entry["cause"] in cause:
            return f"{line}. Known: {entry['explanation']} {entry['link']}".rstrip()
    return f"{line}. Not explained."
