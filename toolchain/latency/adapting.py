"""A calibrated model fitted to one's own device: a few measurements set its scale and its overhead.

    measured = scale * kernels + overhead

`scale` and `overhead` have priors around the published device (devices of one kind differ by about half), and
measurements the model's own error as noise: one measurement moves mostly the scale, several both. This is
Bayesian linear regression (Bishop 2006, 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Final

import numpy as np

from toolchain.errors import InputError
from toolchain.latency.calibrated import Calibration, Source, predict
from toolchain.latency.operators import Operator
from toolchain.latency.terms import INFERENCE

SPREAD: Final = 0.5
"""Standard deviation of the scale between devices of one kind, and of the overhead relative to itself."""
FLOOR: Final = 0.02
"""An overhead may be this share of the usual latency, also where the published device has none."""
NORMAL_90: Final = 1.645


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One network's operators and its latency on the user's device."""

    operators: tuple[Operator, ...]
    ms: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the measurements made of a model: factor on all kernels, overhead before and after."""

    scale: float
    overhead_ms: float
    was_ms: float


def adapt(model: Calibration, found: Sequence[Measured], *, source: str) -> tuple[Calibration, Change]:
    """The model for the measured device; `source` names the measurements in its evidence.

    Its errors and interval stay those of the published device: few measurements cannot judge themselves.

    Raises:
        InputError: no measurements, or such that contradict the model (a scale that is not positive).
    """
    if not found:
        raise InputError("no measurements to adapt a latency model to")
    change = _solved(model, found)
    if change.scale <= 0:
        raise InputError(
            f"the measurements do not grow with what the networks cost on {model.variant}",
            hint="were they all taken on one device, runtime, precision and number of threads?",
        )
    ms_per = {t: v * change.scale for t, v in model.ms_per.items() if t != INFERENCE}
    own = Source(url=source, date="", rows=len(found), paths=(), statistic="measured by you")
    evidence = replace(model.evidence, sources=(*model.evidence.sources, own))
    times = "measurement" if len(found) == 1 else "measurements"
    said = (
        f"by {len(found)} {times} in {source}: kernels x {change.scale:.3g}, overhead"
        f" {change.was_ms:.3g} -> {change.overhead_ms:.3g} ms"
    )
    adapted = replace(
        model, ms_per={**ms_per, INFERENCE: change.overhead_ms}, evidence=evidence, adapted=said
    )
    return adapted, change


def _solved(model: Calibration, found: Sequence[Measured]) -> Change:
    """The most probable scale and overhead, errors relative to what was measured."""
    y = np.array([one.ms for one in found])
    if not (np.isfinite(y) & (y > 0)).all():
        raise InputError("a measured latency is not a positive number of milliseconds")
    was = model.ms_per.get(INFERENCE, 0.0)
    totals = np.array([predict(model, one.operators).estimate.ms for one in found])
    noise = max(log(model.interval.high / model.interval.low) / (2 * NORMAL_90), FLOOR)
    spreads = np.array([SPREAD, SPREAD * was + FLOOR * float(np.median(y))])
    rows = np.column_stack([totals - was, np.ones(len(y))]) / (noise * y[:, None])
    left = np.vstack([rows, np.diag(1 / spreads)])
    right = np.concatenate([np.full(len(y), 1 / noise), np.array([1.0, was]) / spreads])
    scale, overhead = np.linalg.lstsq(left, right, rcond=None)[0]
    if overhead < 0:
        left, right = left[:, :1], right[:-1]
        scale, overhead = np.linalg.lstsq(left[:-1], right, rcond=None)[0][0], 0.0
    return Change(scale=float(scale), overhead_ms=float(overhead), was_ms=was)
