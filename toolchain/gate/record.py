"""What a gate is asked, what it finds, and the record of it: schema `edgefit.gate/1` of docs/gate.md."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from toolchain import __version__
from toolchain.gate.limits import Judged, Limits
from toolchain.gate.sides import Side, Wishes
from toolchain.latency.intervals import Interval
from toolchain.latency.noise import Noise
from toolchain.latency.sequential import Answer, Course, Look
from toolchain.plain import to_plain
from toolchain.values import Measurement

EXIT: Final[Mapping[Answer, int]] = {"pass": 0, "fail": 1, "inconclusive": 10}
Clock = Literal["auto", "cpu", "wall"]


@dataclass(frozen=True, kw_only=True)
class GateRequest:
    """What is compared, and by which rule. `max_regression` is a ratio minus 1: 0.05 for 5 %."""

    candidate: Path
    baseline: str
    wishes: Wishes
    threads: int = 1
    clock: Clock = "auto"
    max_regression: float = 0.05
    seconds: float = 60.0
    on_inconclusive: Answer = "inconclusive"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the comparison of latencies came to."""

    judged: Judged
    candidate: Measurement
    baseline: Measurement
    noise: Noise | None
    clock: str
    wall: Interval
    courses: tuple[Course, ...] = ()
    notes: tuple[str, ...] = ()


def overall(judged: Sequence[Judged]) -> Answer:
    """The worst of all: a failure, then what is not clear. What could not be judged is not clear."""
    answers = {entry.verdict for entry in judged}
    return "fail" if "fail" in answers else "pass" if answers == {"pass"} else "inconclusive"


def now() -> str:
    """UTC time in ISO form; SOURCE_DATE_EPOCH when set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.datetime.now(datetime.UTC)
    if epoch.isdigit():
        moment = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    return moment.isoformat(timespec="seconds")


def gate_record(
    request: GateRequest,
    candidate: Side,
    baseline: Side,
    found: Found,
    judged: Sequence[Judged],
    seconds: float,
) -> dict[str, Any]:
    """Plain data; what has no end (an interval of too few pairs) is null."""
    answer = overall(judged)
    return {
        "schema": "edgefit.gate/1",
        "tool": {"name": "edgefit", "version": __version__},
        "created": now(),
        "verdict": answer,
        "exit_code": EXIT[request.on_inconclusive if answer == "inconclusive" else answer],
        "target": request.wishes.target.name,
        "clock": found.clock,
        "max_regression": request.max_regression,
        "noise": None if found.noise is None else to_plain(found.noise),
        "candidate": _side_record(candidate, found.candidate),
        "baseline": _side_record(baseline, found.baseline),
        "wall_ratio": _interval(found.wall),
        "checks": [_judged_record(entry) for entry in judged],
        "courses": [_course(course) for course in found.courses],
        "notes": list(found.notes),
        "seconds": seconds,
    }


def _side_record(side: Side, measured: Measurement) -> dict[str, Any]:
    return {
        "label": side.label,
        "precision": side.precision,
        "size_bytes": None if side.artifact is None else side.artifact.size_bytes,
        "measurement": to_plain(measured),
    }


def _interval(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.value, "low": interval.low, "high": _finite(interval.high)}


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value


def _judged_record(entry: Judged) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(entry)
    return {**plain, "high": _finite(entry.high)}


def _course(course: Course) -> dict[str, Any]:
    return {
        "answer": course.answer,
        "seconds": course.seconds,
        "looks": [_look(look) for look in course.looks],
        "log_ratios": list(course.log_ratios),
    }


def _look(look: Look) -> dict[str, Any]:
    return {"pairs": look.pairs, "alpha": look.alpha, **_interval(look.ratio)}
