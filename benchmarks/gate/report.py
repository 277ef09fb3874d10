"""The tables of `benchmarks/gate/results.md`, from the raw runs: `python -m benchmarks.gate.report`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.gate.run import ADDED, RAW, read

HERE: Final = Path(__file__).parent
ASKED: Final = {"ab-3": "reported", "ab-5": "95 %", "ab-10": "99 %"}
MINUTE: Final = 60.0
Runs = Sequence[dict[str, Any]]


def share(count: int, of: int) -> str:
    """`3 of 200 (1.5 %)`."""
    return f"{count} of {of} ({100 * count / of:.1f} %)" if of else "not run"


def naive_alarms(runs: Runs, clock: str) -> int:
    """How many naive comparisons of medians are above the threshold."""
    return sum((run["naive"][clock] or 0) > 1 + run["threshold"] for run in runs)


def row(name: str, runs: Runs, asked: str) -> str:
    """One piece in a line of the table."""
    if not runs:
        return f"| {name} | 0 | {asked} | not run |  |  |  |  |  |"
    failed = sum(run["verdict"] == "fail" for run in runs)
    unclear = sum(run["verdict"] == "inconclusive" for run in runs)
    seconds = sorted(run["seconds"] for run in runs)
    late = sum(s > MINUTE for s in seconds)
    cells = (
        name,
        str(len(runs)),
        asked,
        share(failed, len(runs)),
        share(unclear, len(runs)),
        f"{statistics.median(seconds):.1f} s, {seconds[-1]:.0f} s at most, {late} over 60 s",
        f"{min(run['load'] for run in runs):.1f}-{max(run['load'] for run in runs):.1f}",
        share(naive_alarms(runs, "wall"), len(runs)),
        share(naive_alarms(runs, "cpu"), len(runs)),
    )
    return f"| {' | '.join(cells)} |"


def tables() -> str:
    """The whole page."""
    heads = (
        "runs of", "number", "asked", "gate: fail", "gate: inconclusive", "time of a gate run (median)",
        "load average", "naive, wall: alarm", "naive, CPU: alarm",
    )  # fmt: skip
    lines = [
        (HERE / "about.md").read_text().rstrip(),
        "",
        f"| {' | '.join(heads)} |",
        "| --- " * len(heads) + "|",
    ]
    unchanged = {"aa": read("aa"), "aa-load": read("aa-load")}
    lines.append(row("A/A, threshold 5 %", unchanged["aa"], "at most 1 %"))
    lines.append(row("A/A with a load switched on and off", unchanged["aa-load"], "at most 1 %"))
    lines.append(row("A/A in all", [*unchanged["aa"], *unchanged["aa-load"]], "at most 1 %"))
    truth = json.loads((RAW / "truth.json").read_text()) if (RAW / "truth.json").exists() else {}
    for piece in ADDED:
        size = truth.get(piece, {}).get("cpu")
        told = "size not measured" if size is None else f"{100 * (size['value'] - 1):.2f} %"
        lines.append(row(f"A/B, {told} slower, threshold 1 % below", read(piece), ASKED[piece]))
    lines += ["", *_truth(truth), "", *_mlperf()]
    return "\n".join(lines) + "\n"


def _truth(truth: dict[str, Any]) -> list[str]:
    lines = [
        "| network | multiply-accumulates added | true ratio by CPU time (99 %) | by wall time | pairs |"
    ]
    lines.append("| --- " * 5 + "|")
    for name, entry in truth.items():
        cells = [f"{e['value']:.4f} ({e['low']:.4f}-{e['high']:.4f})" for e in (entry["cpu"], entry["wall"])]
        lines.append(f"| {name} | {entry['macs_added']:,} | {cells[0]} | {cells[1]} | {entry['pairs']} |")
    return lines


def _mlperf() -> list[str]:
    path = HERE / "mlperf.json"
    if not path.exists():
        return ["MLPerf: not replayed"]
    found = json.loads(path.read_text())
    lines = [
        f"Replayed on {found['pairs']} pairs of unchanged model and board from published MLPerf runs",
        "",
    ]
    lines += ["| statistic | alarms at 5 % | alarms at 10 % |", "| --- | --- | --- |"]
    for name in found["alarms"]["5 %"]:
        cells = [share(*found["alarms"][threshold][name]) for threshold in ("5 %", "10 %")]
        lines.append(f"| {name.removesuffix('_ms')} | {cells[0]} | {cells[1]} |")
    return lines


if __name__ == "__main__":
    (HERE / "results.md").write_text(tables())
    print(tables())
