"""How long a file is benched, and what its samples amount to.

The tiers follow the shape of MLPerf's: a least number of runs and a least time, both to be reached. Intervals
come from the order statistics of sessions (`intervals.py`), of one long session from those of its windows.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from toolchain.contracts import Tier
from toolchain.errors import DeviceError
from toolchain.latency.intervals import Interval, median_interval

TIERS: Final = {
    tier.name: tier
    for tier in (
        Tier(name="rapid", runs=64, seconds=6, trials=8),
        Tier(name="quick", runs=128, seconds=10, trials=8),
        Tier(name="normal", runs=1024, seconds=60, trials=16),
        Tier(name="release", runs=1024, seconds=600, trials=20),
        Tier(name="sustained", runs=1024, seconds=1800, trials=1, windows=30),
    )
}
TAIL_RUNS: Final = 1000
"""Fewer runs than this say nothing of the slowest one in a hundred."""
THROTTLED: Final = 1.05
"""A session whose last fifth is slower than its first fifth by more than this was throttled."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One record of a session: its median and 90th percentile, and the device's state at its end."""

    trial: int
    p50_ms: float
    p90_ms: float
    celsius: float | None
    mhz: float | None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a file's samples amount to. Times are wall-clock milliseconds of one inference.

    `runs` were made, `kept` of them are in `samples_ms`. `p99_ms` is None below 1,000 runs. `settled` is
    whether every warm-up did, `late` how many runs missed the cadence, None where nobody counted. `slowdown`
    compares the last fifth of one long session with its first fifth; None for short ones.
    """

    runs: int
    kept: int
    min_ms: float
    p50: Interval
    p90: Interval
    p99_ms: float | None
    cpu_p50_ms: float | None
    load_ms: float | None
    first_ms: float | None
    settled: bool | None
    late: int | None
    slowdown: float | None
    throttled: bool | None
    windows: tuple[Window, ...]
    samples_ms: tuple[tuple[float, ...], ...]


def timing(records: Sequence[Mapping[str, Any]], tier: Tier) -> Timing:
    """The timing that the trial records of one file amount to (docs/runner.md has their fields).

    Raises:
        DeviceError: records are missing, or one has fewer runs than the tier asks for.
    """
    parts = tier.trials * tier.windows
    if len(records) != parts or any(r["runs"] * parts < tier.runs for r in records):
        raise DeviceError(f"{len(records)} of {parts} parts of the measurement came back")
    samples = tuple(tuple(ns / 1e6 for ns in record["wall_ns"]) for record in records)
    firsts = [record for record in records if record["window"] == 0]
    windows = tuple(_window(record, times) for record, times in zip(records, samples, strict=True))
    runs = sum(record["runs"] for record in records)
    slowdown = _slowdown(windows) if tier.windows > 1 else None
    return Timing(
        runs=runs,
        kept=sum(map(len, samples)),
        min_ms=min(record["min_ns"] for record in records) / 1e6,
        p50=median_interval([window.p50_ms for window in windows]),
        p90=median_interval([window.p90_ms for window in windows]),
        p99_ms=float(np.quantile(np.concatenate(samples), 0.99)) if runs >= TAIL_RUNS else None,
        cpu_p50_ms=_median_ms([statistics.median(r["cpu_ns"]) for r in records if "cpu_ns" in r]),
        load_ms=_median_ms([record["load_ns"] for record in firsts if "load_ns" in record]),
        first_ms=_median_ms([record["first_ns"] for record in firsts if "first_ns" in record]),
        settled=all(r["settled"] for r in firsts) if all("settled" in r for r in firsts) else None,
        late=sum(r["late"] for r in records) if all("late" in r for r in records) else None,
        slowdown=slowdown,
        throttled=None if slowdown is None else slowdown > THROTTLED,
        windows=windows,
        samples_ms=samples,
    )


def _median_ms(nanoseconds: Sequence[float]) -> float | None:
    """None where the driver does not tell."""
    return statistics.median(nanoseconds) / 1e6 if nanoseconds else None


def _window(record: Mapping[str, Any], times_ms: Sequence[float]) -> Window:
    p50, p90 = np.quantile(times_ms, (0.5, 0.9))
    return Window(
        trial=record["trial"],
        p50_ms=float(p50),
        p90_ms=float(p90),
        celsius=record.get("celsius"),
        mhz=record.get("mhz"),
    )


def _slowdown(windows: Sequence[Window]) -> float:
    """Median latency of the last fifth of the windows over that of the first fifth."""
    fifth = max(1, len(windows) // 5)
    first, last = windows[:fifth], windows[-fifth:]
    return statistics.median(w.p50_ms for w in last) / statistics.median(w.p50_ms for w in first)
