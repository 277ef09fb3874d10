"""What follows from raw samples: medians with intervals, ratios, and the verdict on a budget.

Runs within a trial share one session (memory layout, clock state), so they are not independent: two loads
of one file differ by more than their runs do. Each trial is therefore reduced to one number, and intervals
come from the order statistics of these numbers: distribution-free, exact whatever the dependence within a
trial. The interpolation to 95 % is Hettmansperger and Sheather (1986), "Confidence intervals based on
interpolated order statistics", Statistics & Probability Letters 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from toolchain.errors import InputError
from toolchain.values import Conditions, Measurement, Precision, Verdict

LEVEL = 0.95
# Two-sided 97.5 % quantiles of Student's t for n - 1 degrees of freedom: fewer than six trials cannot give
# a 95 % interval from order statistics (2 * 0.5^5 > 5 %).
_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its 95 % interval, all in one unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one fresh session gave: wall and CPU times of its timed runs, and what came before them."""

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...] = ()
    load_ms: float | None = None
    first_ms: float | None = None


def median_interval(values: Sequence[float]) -> Interval:
    """The median of independent `values` with its 95 % interval.

    From six values on by interpolated order statistics; from two to five by Student's t around the median
    (wide, as it should be). A single value gives an interval of no width: see `summarise`.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    middle = float(np.median(ordered))
    if n < 2:
        return Interval(value=middle, low=middle, high=middle)
    if n in _STUDENT:
        half = _STUDENT[n] * float(np.std(ordered, ddof=1)) / math.sqrt(n)
        return Interval(value=middle, low=middle - half, high=middle + half)
    depth, weight = _depth(n)
    low = (1 - weight) * ordered[depth - 1] + weight * ordered[depth]
    high = (1 - weight) * ordered[n - depth] + weight * ordered[n - depth - 1]
    return Interval(value=middle, low=float(low), high=float(high))


def summarise(
    trials: Sequence[Trial],
    *,
    label: str,
    sha256: str,
    runtime: str,
    precision: Precision,
    conditions: Conditions,
) -> Measurement:
    """The measurement that `trials` amount to.

    `p50_ms` is the median over trials of each trial's median, `p90_ms` that of each trial's 90th percentile.
    With one trial only the interval is the range of its runs.

    Raises:
        InputError: no trial, or a trial without a run.
    """
    if not trials or any(not trial.wall_ms for trial in trials):
        raise InputError(f"no samples of '{label}' to summarise")
    p50 = _quantile_interval([t.wall_ms for t in trials], 0.5)
    p90 = _quantile_interval([t.wall_ms for t in trials], 0.9)
    cpu_ms = tuple(float(np.median(t.cpu_ms)) for t in trials if t.cpu_ms)
    return Measurement(
        label=label,
        sha256=sha256,
        runtime=runtime,
        precision=precision,
        p50_ms=p50.value,
        p50_low_ms=p50.low,
        p50_high_ms=p50.high,
        p90_ms=p90.value,
        p90_low_ms=p90.low,
        p90_high_ms=p90.high,
        cpu_p50_ms=_median(cpu_ms),
        load_ms=_median([t.load_ms for t in trials if t.load_ms is not None]),
        first_ms=_median([t.first_ms for t in trials if t.first_ms is not None]),
        samples_ms=tuple(t.wall_ms for t in trials),
        conditions=conditions,
        cpu_trials_ms=cpu_ms if len(cpu_ms) == len(trials) else (),
    )


def pooled(earlier: Measurement, later: Measurement) -> Measurement:
    """Two measurements of the same file as one, with the trials of both; conditions are the later ones.

    Raises:
        InputError: they are not of the same file, runtime and threads.
    """
    if (earlier.sha256, earlier.runtime, earlier.conditions.threads) != (
        later.sha256,
        later.runtime,
        later.conditions.threads,
    ):
        raise InputError(f"measurements of '{earlier.label}' and '{later.label}' are not of the same thing")
    whole = summarise(
        [Trial(wall_ms=samples) for samples in earlier.samples_ms + later.samples_ms],
        label=later.label,
        sha256=later.sha256,
        runtime=later.runtime,
        precision=later.precision,
        conditions=later.conditions,
    )
    cpu_ms = earlier.cpu_trials_ms + later.cpu_trials_ms
    return replace(
        whole,
        cpu_p50_ms=_median(cpu_ms) if cpu_ms else later.cpu_p50_ms,
        load_ms=later.load_ms,
        first_ms=later.first_ms,
        cpu_trials_ms=cpu_ms,
        peak_bytes=max((b for b in (earlier.peak_bytes, later.peak_bytes) if b is not None), default=None),
        placement=later.placement or earlier.placement,
    )


def scatter(measurement: Measurement) -> tuple[float, float]:
    """The 10th and the 90th percentile of the medians of the trials, in milliseconds."""
    low, high = np.percentile([np.median(samples) for samples in measurement.samples_ms], [10, 90])
    return float(low), float(high)


def verdict(measurement: Measurement | None, budget_ms: float) -> Verdict:
    """Held when the whole interval of the p50 is under the budget, over when all of it is above."""
    if measurement is None:
        return "not measured"
    if measurement.p50_high_ms < budget_ms:
        return "held"
    if measurement.p50_low_ms > budget_ms:
        return "over"
    return "inconclusive"


def ratio(measurement: Measurement, baseline: Measurement) -> Interval:
    """p50 of `measurement` over that of `baseline`, paired by trial, with its 95 % interval.

    Trials of one comparison are interleaved, so a disturbance hits both sides of a pair and cancels.

    Raises:
        InputError: the two have different numbers of trials, so they were not measured together.
    """
    if len(measurement.samples_ms) != len(baseline.samples_ms):
        raise InputError(
            f"'{measurement.label}' and '{baseline.label}' were not measured together",
            hint="measure both in one call",
        )
    pairs = zip(measurement.samples_ms, baseline.samples_ms, strict=True)
    return median_interval([float(np.median(a) / np.median(b)) for a, b in pairs])


def _quantile_interval(trials: Sequence[Sequence[float]], q: float) -> Interval:
    if len(trials) == 1:
        value = float(np.quantile(trials[0], q))
        return Interval(value=value, low=float(min(trials[0])), high=float(max(trials[0])))
    return median_interval([float(np.quantile(samples, q)) for samples in trials])


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _depth(n: int) -> tuple[int, float]:
    """Depth d and weight: the interval lies between the (d, n-d+1) order statistics and the next ones in.

    The pair at depth d covers the median with 1 - 2 P(Binomial(n, 1/2) < d).
    """
    masses = [math.comb(n, k) / 2**n for k in range(n // 2 + 1)]
    coverages = [1 - 2 * sum(masses[:d]) for d in range(n // 2 + 1)]
    depth = max(d for d in range(1, n // 2 + 1) if coverages[d] >= LEVEL)
    if depth + 1 > n // 2:
        return depth, 0.0
    outer, inner = coverages[depth], coverages[depth + 1]
    share = (outer - LEVEL) / (outer - inner)
    return depth, (n - depth) * share / (depth + (n - 2 * depth) * share)
