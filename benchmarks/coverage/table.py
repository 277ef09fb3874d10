"""The results as a markdown table, with the medians that the issue of speed turns on."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

_HEAD = (
    "| network | result | deviation | prunable % | MACs kept | capture s | analysis s | pruning s "
    "| torch-pruning s | peak rise / parameters |\n|---|---|---|---|---|---|---|---|---|---|\n"
)


def markdown(record: Mapping[str, Any]) -> str:
    """A summary and one row a network; those not run are listed with their reason."""
    networks: Mapping[str, Any] = record["networks"]
    done = {n: r for n, r in networks.items() if "capture_s" in r}
    failed = {n: r for n, r in networks.items() if n not in done and r["status"] != "not run"}
    waiting = {n: r for n, r in networks.items() if r["status"] == "not run"}
    lines = [f"# Coverage: {record['family']}", "", _environment(record), "", *_summary(done, networks), ""]
    rows = "".join(_row(name, done[name]) for name in sorted(done))
    lines.append(_HEAD + rows)
    for title, some in (("Failed", failed), ("Not run", waiting)):
        if some:
            lines += [f"## {title}", "", *(f"- {n}: {r['reason']}" for n, r in sorted(some.items())), ""]
    return "\n".join(lines).rstrip() + "\n"


def _environment(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in record["environment"].items())


def _summary(done: Mapping[str, Any], networks: Mapping[str, Any]) -> list[str]:
    if not done:
        return [f"0 of {len(networks)} networks run."]
    equal = sum(r["status"] == "equal" for r in done.values())
    worst = min(done, key=lambda n: _percent(done[n]))
    slowest = max(done, key=lambda n: done[n]["analysis_s"])
    lines = [
        f"{len(done)} of {len(networks)} networks run; {equal} equal to their masked originals in float64 "
        "(relative 1e-6) with planned cost equal to the cost after pruning.",
        f"Prunable least: {worst}, {_percent(done[worst]):.2f} % of the channels that reach no output.",
        f"Analysis longest: {slowest}, {done[slowest]['analysis_s']:.1f} s.",
    ]
    both = [r for r in done.values() if r["rival"]["status"] == "ran"]
    if both:
        bare = statistics.median(_seconds(r) / _seconds(r["rival"]) for r in both)
        whole = statistics.median((_seconds(r) + r["capture_s"]) / _seconds(r["rival"]) for r in both)
        lines.append(
            f"Analysis and pruning against torch-pruning's, median over {len(both)} networks: {bare:.2f}x, "
            f"with our capture {whole:.2f}x. torch-pruning's outputs are not checked here; it runs in "
            "float32, ours in float64."
        )
    return lines


def _row(name: str, r: Mapping[str, Any]) -> str:
    memory = "-" if r["peak_rise_bytes"] is None else f"{r['peak_rise_bytes'] / r['parameter_bytes']:.2f}"
    theirs = r["rival"]
    other = f"{_seconds(theirs):.2f}" if theirs["status"] == "ran" else theirs["status"]
    return (
        f"| {name} | {r['status']} | {r['deviation']:.1e} | {_percent(r):.2f} | {r['macs_kept']:.2f} "
        f"| {r['capture_s']:.2f} | {r['analysis_s']:.2f} | {r['pruning_s']:.2f} | {other} | {memory} |\n"
    )


def _percent(r: Mapping[str, Any]) -> float:
    return float(100 * r["prunable"] / r["channels"])


def _seconds(r: Mapping[str, Any]) -> float:
    return float(r["analysis_s"] + r["pruning_s"])
