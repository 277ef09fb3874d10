"""The results as a markdown table under a summary."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

_CHECKS = ("half", "uneven", "twice", "captured")
_HEAD = (
    "| network | M params | result | half | uneven | twice | captured again | prunable % | MACs kept "
    "| groups | capture s | analysis s | pruning s | torch-pruning s | peak |\n" + "|---" * 15 + "|\n"
)
Results = Mapping[str, Any]


def markdown(record: Results) -> str:
    """A summary, one row a network, and what is missing: failures, frozen channels, networks not run."""
    networks: Mapping[str, Results] = record["networks"]
    done = {n: r for n, r in networks.items() if r["status"] != "not run"}
    waiting = {n: r for n, r in networks.items() if n not in done}
    lines = [f"# Coverage: {record['family']}", "", _environment(record), "", *_summary(done, networks), ""]
    if done:
        lines.append(_HEAD + "".join(_row(name, done[name]) for name in sorted(done)))
        lines += [_LEGEND, ""]
    failed = [
        f"- {n}: {r['status']}: {r.get('reason', '')}" for n, r in sorted(done.items()) if not _equal(r)
    ]
    missing = [f"- {n}: {_missing(r)}" for n, r in sorted(done.items()) if r.get("missing")]
    unknown = [f"- {n}: {_listed(r['unknown_operators'])}" for n, r in sorted(done.items()) if _unknown(r)]
    theirs = [f"- {n}: {_rival(r)['reason']}" for n, r in sorted(done.items()) if "reason" in _rival(r)]
    noted = [f"- {n}: {r['noted']} of {r['groups']}" for n, r in sorted(done.items()) if r.get("noted")]
    whole = [f"- {n}: {r['whole']}" for n, r in sorted(done.items()) if r.get("whole")]
    slow = [f"- {n}: {r['race']['reason']}" for n, r in sorted(done.items()) if "reason" in r.get("race", {})]
    left = [f"- {n}: {r['reason']}" for n, r in sorted(waiting.items())]
    for title, entries in (
        ("Not equal, or failed", failed),
        ("Channels in no prunable group", missing),
        ("Operators without a rule", unknown),
        ("Groups cut with restricted statistics", noted),
        ("Detection models with their selection of boxes", whole),
        ("torch-pruning: no result", theirs),
        ("Times not measured", slow),
        ("Not run", left),
    ):
        if entries:
            lines += [f"## {title}", "", *entries, ""]
    return "\n".join(lines).rstrip() + "\n"


_LEGEND = (
    "half, uneven, twice: deviation of the pruned network from the masked original in float64, relative to "
    "the largest output, at batch 3, 1 and 4 (captured at 2). Where a normalisation runs over pruned "
    "channels, the reference is the masked original with statistics restricted to the kept ones. captured "
    "again: through torch.export once more, batch 5. prunable: share of output channels of convolutions and "
    "linear layers that do not reach an output of the network. peak: memory at the highest point of analysis "
    "and pruning in parameter sizes, the network included. Times are CPU seconds, one thread, float32, "
    "both tools in one process; torch-pruning's outputs are not checked."
)


def _environment(record: Results) -> str:
    return ", ".join(f"{key} {value}" for key, value in record["environment"].items())


def _summary(done: Mapping[str, Results], networks: Mapping[str, Results]) -> list[str]:
    if not done:
        return [f"0 of {len(networks)} networks run."]
    lines = [
        f"- {len(done)} of {len(networks)} networks run; {sum(map(_equal, done.values()))} pass every check: "
        "pruned by half, unevenly and twice equal to the masked original in float64 (relative 1e-6), planned "
        "cost equal to the cost after pruning, captured again with the same outputs and groups.",
        f"- Run at commit {', '.join(sorted({r.get('commit', 'unknown') for r in done.values()}))}.",
    ]
    shared = {n: _percent(r) for n, r in done.items() if "prunable" in r}
    if shared:
        worst = min(shared, key=lambda n: shared[n])
        free = sum(done[n]["prunable"] for n in shared)
        whole = free + sum(done[n]["frozen"] for n in shared)
        lines.append(
            f"- Prunable: {100 * free / whole:.2f} % of all output channels that reach no output; at least "
            f"99 % in {sum(p >= 99 for p in shared.values())} of {len(shared)} networks, least in {worst} "
            f"({shared[worst]:.2f} %)."
        )
    fixed = sorted(n for n, r in done.items() if r.get("dynamic_batch") is False)
    lines.append(f"- Batch fixed at export: {', '.join(fixed) or 'none'}.")
    return [*lines, *_times(done)]


def _times(done: Mapping[str, Results]) -> list[str]:
    raced = {n: r["race"] for n, r in done.items() if "analysis_s" in r.get("race", {})}
    if not raced:
        return []
    slowest = max(raced, key=lambda n: raced[n]["analysis_s"])
    lines = [f"- Analysis takes longest for {slowest}: {raced[slowest]['analysis_s']:.1f} s."]
    peaks = {n: _peak(r) for n, r in raced.items() if r["peak_rise_bytes"] is not None}
    if peaks:
        highest = max(peaks, key=lambda n: peaks[n])
        over = sum(p > 3 for p in peaks.values())
        lines.append(
            f"- Peak memory: {statistics.median(peaks.values()):.2f}x the parameters in the median, most for "
            f"{highest} ({peaks[highest]:.2f}x); over 3x in {over} networks."
        )
    both = [r for r in raced.values() if r["rival"]["status"] == "ran"]
    states = Counter(r["rival"]["status"] for r in raced.values())
    if both:
        bare = statistics.median(_seconds(r) / _seconds(r["rival"]) for r in both)
        whole = statistics.median((_seconds(r) + r["capture_s"]) / _seconds(r["rival"]) for r in both)
        lines.append(
            f"- Analysis and pruning against torch-pruning's: {bare:.2f}x in the median over {len(both)} "
            f"networks; {whole:.2f}x with our capture. torch-pruning: {_listed(states)}."
        )
    return lines


def _row(name: str, r: Results) -> str:
    checks: Mapping[str, Results] = r.get("checks", {})
    found = [checks.get(c, {}) for c in _CHECKS]
    deviations = [f"{c['deviation']:.1e}" if "deviation" in c else c.get("status", "-") for c in found]
    macs = found[0].get("macs")
    cells = [
        name,
        f"{r['params'] / 1e6:.2f}",
        r["status"],
        *deviations,
        f"{_percent(r):.2f}" if "prunable" in r else "-",
        f"{macs / r['macs']:.2f}" if macs is not None else "-",
        str(r.get("groups", "-")),
        *_race_cells(r.get("race", {})),
    ]
    return "| " + " | ".join(cells) + " |\n"


def _race_cells(race: Results) -> list[str]:
    if "analysis_s" not in race:
        return ["-"] * 5
    theirs = race["rival"]
    return [
        *(f"{race[key]:.2f}" for key in ("capture_s", "analysis_s", "pruning_s")),
        f"{_seconds(theirs):.2f}" if theirs["status"] == "ran" else theirs["status"],
        "-" if race["peak_rise_bytes"] is None else f"{_peak(race):.2f}",
    ]


def _missing(r: Results) -> str:
    """Reasons with their channels and the first layer, most channels first."""
    by: dict[str, list[Results]] = {}
    for entry in r["missing"]:
        by.setdefault(entry["reason"], []).append(entry)
    counted = sorted(by.items(), key=lambda item: -sum(e["channels"] for e in item[1]))
    texts = [
        f"{sum(e['channels'] for e in some)} in {len(some)} layers (first {some[0]['layer']}): {reason}"
        for reason, some in counted
    ]
    more = f"; and {len(texts) - 3} more reasons" if len(texts) > 3 else ""
    return "; ".join(texts[:3]) + more


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _equal(r: Results) -> bool:
    return bool(r["status"] == "equal")


def _unknown(r: Results) -> bool:
    return bool(r.get("unknown_operators"))


def _rival(r: Results) -> Results:
    found: Results = r.get("race", {}).get("rival", {})
    return found


def _percent(r: Results) -> float:
    total = r["prunable"] + r["frozen"]
    return 100 * r["prunable"] / total if total else 100.0


def _peak(race: Results) -> float:
    return 1 + float(race["peak_rise_bytes"] / race["parameter_bytes"])


def _seconds(race: Results) -> float:
    return float(race["analysis_s"] + race["pruning_s"])
