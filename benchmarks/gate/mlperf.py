"""Which statistic to gate on: published MLPerf runs of unchanged models on unchanged boards, replayed.

    python -m benchmarks.gate.mlperf ../shared/data/latency_mlperf_percentiles.csv.gz

A pair is two submissions, of successive rounds, of the same model in the same precision and input on the same
board with the same framework, as the table spells them: nothing was changed that the table tells. Whoever
gates on a statistic raises an alarm where it grew by more than the threshold. The figures are derived from
MLPerf results and not verified by MLCommons.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

STATISTICS: Final = ("min_ms", "p50_ms", "mean_ms", "p90_ms", "p95_ms", "p97_ms", "p99_ms", "p999_ms")
SAME: Final = (
    "submitter",
    "system",
    "device",
    "cpu",
    "accelerator",
    "framework",
    "raw_model",
    "input",
    "precision",
)
THRESHOLDS: Final = (0.05, 0.10)
Row = Mapping[str, str]


def pairs(rows: Sequence[Row], same: Sequence[str] = SAME) -> list[tuple[Row, Row]]:
    """Rows that agree in `same`, each with the next later one (by round, then by place in the table)."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in same)].append(row)
    found = []
    for group in groups.values():
        ordered = sorted(group, key=lambda row: row["round"])
        found += pairwise(ordered)
    return found


def alarms(found: Sequence[tuple[Row, Row]], statistic: str, threshold: float) -> tuple[int, int]:
    """(pairs that raise an alarm, pairs that have the statistic on both sides)."""
    ratios = [
        float(after[statistic]) / float(before[statistic])
        for before, after in found
        if before[statistic] and after[statistic] and float(before[statistic]) > 0
    ]
    return sum(ratio > 1 + threshold for ratio in ratios), len(ratios)


def replay(path: Path) -> dict[str, Any]:
    """False alarms by statistic and threshold."""
    with gzip.open(path, "rt", newline="", encoding="utf-8") as lines:
        # Early rounds also allowed a minute: all runs here are of ten.
        rows = [row for row in csv.DictReader(lines) if row["min_duration_ms"] == "600000"]
    found = pairs(rows)
    counted = {
        f"{100 * threshold:g} %": {name: alarms(found, name, threshold) for name in STATISTICS}
        for threshold in THRESHOLDS
    }
    return {"rows": len(rows), "pairs": len(found), "same": list(SAME), "alarms": counted}


if __name__ == "__main__":
    result = replay(Path(sys.argv[1]))
    (Path(__file__).parent / "mlperf.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
