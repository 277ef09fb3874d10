"""`edgefit gate`: is the candidate slower than the baseline? Measured in turns until the answer is clear.

open both sides -> measure pairs -> a failure is confirmed by one rerun -> other limits -> record.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from toolchain import registry
from toolchain.contracts import Device, Progress, Sampling, Target
from toolchain.errors import InputError
from toolchain.gate.limits import Judged, judge_limits
from toolchain.gate.record import Found, GateRequest, gate_record
from toolchain.gate.sides import Side, open_baseline, open_candidate
from toolchain.latency.intervals import Interval, pooled, verdict
from toolchain.latency.noise import TIMES, Noise, identity_of, known_noise
from toolchain.latency.paired import ratio_interval
from toolchain.latency.sequential import Course, answer_of, log_ratio, until_clear
from toolchain.latency.timings import cache_folder
from toolchain.stages import Stages
from toolchain.values import Artifact, Measurement

PAIRS: Final = Sampling(trials=8, runs=60, warmup=20, trial_seconds=0.4, turns=6)
"""Both models' runs in six turns of ten: other work on a machine comes in bursts of some milliseconds."""
STORED_TRIALS: Final = 32


def gate(request: GateRequest, progress: Progress) -> dict[str, Any]:
    """The record of a gate run, schema `edgefit.gate/1`.

    Raises:
        CompressError: a side cannot be opened or measured, or stored figures are of other conditions.
    """
    began = time.monotonic()
    device = request.wishes.target.connect()
    with tempfile.TemporaryDirectory(prefix="edgefit-gate-") as folder:
        stages = Stages(root=Path(folder))
        progress.stage("Opening both models")
        candidate = open_candidate(request.candidate, request.wishes, stages)
        baseline = open_baseline(request.baseline, request.candidate, request.wishes, stages)
        if candidate.artifact is not None and baseline.artifact is not None:
            found = _measured_now(request, device, candidate.artifact, baseline.artifact, progress)
        else:
            found = _against_stored(request, device, candidate, baseline, progress)
        limits = judge_limits(
            request.limits, device, candidate, baseline, found.candidate, request.threads, progress
        )
    judged = (found.judged, *limits)
    return gate_record(request, candidate, baseline, found, judged, time.monotonic() - began)


class Pairs:
    """Measures pairs, block by block, each in a process of its own; keeps the samples of all."""

    def __init__(
        self, device: Device, files: tuple[Artifact, Artifact], request: GateRequest, progress: Progress
    ) -> None:
        self._device, self._files, self._progress = device, files, progress
        self._threads, self._wish = request.threads, request.clock
        self.clock = "wall"
        self.candidate: Measurement | None = None
        self.baseline: Measurement | None = None
        self.wall: list[float] = []

    def __call__(self, pairs: int) -> list[float]:
        """The log ratios of `pairs` new pairs: candidate over baseline."""
        sampling = replace(PAIRS, trials=pairs, threads=self._threads)
        new, old = self._device.measure(self._files, sampling, self._progress)
        self.candidate = new if self.candidate is None else pooled(self.candidate, new)
        self.baseline = old if self.baseline is None else pooled(self.baseline, old)
        wall = _log_ratios(new.samples_ms, old.samples_ms)
        self.wall += wall
        counted = bool(new.cpu_trials_ms and old.cpu_trials_ms)
        if self._wish == "cpu" and not counted:
            raise InputError("this device does not tell the CPU time", hint="--clock wall")
        # The CPU time of several threads is their sum: no latency.
        self.clock = "cpu" if counted and (self._wish == "cpu" or self._one_thread()) else "wall"
        if self.clock == "wall":
            return wall
        return [log_ratio(a, b) for a, b in zip(new.cpu_trials_ms, old.cpu_trials_ms, strict=True)]

    def _one_thread(self) -> bool:
        return self._wish == "auto" and self._threads == 1


def _log_ratios(new: Sequence[Sequence[float]], old: Sequence[Sequence[float]]) -> list[float]:
    return [log_ratio(statistics.median(a), statistics.median(b)) for a, b in zip(new, old, strict=True)]


def _measured_now(
    request: GateRequest, device: Device, candidate: Artifact, baseline: Artifact, progress: Progress
) -> Found:
    """Both in turns until the answer is clear; a failure once more from the beginning."""
    runtime = next(r for r in request.wishes.target.runtimes if r.name == candidate.runtime)
    noise = known_noise(cache_folder(), identity_of(device.conditions(runtime, request.threads)))
    limit = 1 + threshold(request.max_regression, noise)
    pairs = Pairs(device, (candidate, baseline), request, progress)

    def budget_clear() -> bool:
        budget = request.limits.budget_ms
        return budget is None or verdict(pairs.candidate, budget) != "inconclusive"

    progress.stage("Measuring in turns")
    courses = [until_clear(pairs, limit=limit, seconds=request.seconds, enough=budget_clear)]
    if courses[0].answer == "fail":
        progress.stage("Measuring again: a failure has to be confirmed")
        left = request.seconds - courses[0].seconds
        courses.append(until_clear(pairs, limit=limit, seconds=left))
    assert pairs.candidate is not None
    assert pairs.baseline is not None
    return Found(
        judged=_judged(courses, limit),
        candidate=pairs.candidate,
        baseline=pairs.baseline,
        noise=noise,
        clock=pairs.clock,
        wall=ratio_interval(pairs.wall, courses[0].looks[-1].alpha),
        courses=tuple(courses),
        notes=_notes(request, noise, candidate, baseline),
    )


def threshold(max_regression: float, noise: Noise | None) -> float:
    """What a ratio may be above 1: as asked, or three times the device's noise where that is more."""
    return max(max_regression, 0.0 if noise is None else TIMES * noise.ratio)


def _judged(courses: Sequence[Course], limit: float) -> Judged:
    """The answer of one course, or of two that agree; the ratio is that of all pairs of the last one."""
    first, last = courses[0], courses[-1]
    detail = {
        "pass": "",
        "fail": "confirmed by a rerun",
        "inconclusive": "the interval still holds the limit after the time allowed",
    }[first.answer]
    answer = first.answer
    if first.answer == "fail" and last.answer != "fail":
        answer = "inconclusive"
        detail = f"the first sequence failed at {first.ratio.value:.3f}, the rerun did not confirm it"
    ratio = last.ratio
    return Judged(
        name="latency", verdict=answer, value=ratio.value, low=ratio.low, high=ratio.high, limit=limit,
        unit="x", detail=detail,
    )  # fmt: skip


def _notes(
    request: GateRequest, noise: Noise | None, candidate: Artifact, baseline: Artifact
) -> tuple[str, ...]:
    notes = []
    target = request.wishes.target.name
    if noise is None:
        notes.append(f"the noise of this device is not known: edgefit noise --target {target} measures it")
    elif TIMES * noise.ratio > request.max_regression:
        asked = f"{100 * request.max_regression:g} %"
        notes.append(f"the limit is 3 times the device's noise, more than the {asked} asked for")
    if candidate.runtime != baseline.runtime:
        notes.append(f"different runtimes: {candidate.runtime} against {baseline.runtime}")
    if candidate.sha256 == baseline.sha256:
        notes.append("candidate and baseline are the same file")
    return tuple(notes)


def _against_stored(
    request: GateRequest, device: Device, candidate: Side, baseline: Side, progress: Progress
) -> Found:
    """Against figures of an earlier day: only under equal conditions, and never as sharp as in turns."""
    new, old = (_figures(side, request, device, progress) for side in (candidate, baseline))
    here, there = identity_of(new.conditions), identity_of(old.conditions)
    different = [f"{name} ({there[name]} against {here[name]})" for name in here if here[name] != there[name]]
    if different:
        raise InputError(
            f"the stored figures are of other conditions: {', '.join(different)}",
            hint="give both as model files: they are then measured now, in turns",
        )
    # The box of two 95 % intervals holds the ratio at least as surely as one does.
    ratio = Interval(
        value=new.p50_ms / old.p50_ms,
        low=new.p50_low_ms / old.p50_high_ms,
        high=new.p50_high_ms / old.p50_low_ms,
    )
    limit = 1 + request.max_regression
    judged = Judged(
        name="latency", verdict=answer_of(ratio, limit), value=ratio.value, low=ratio.low, high=ratio.high,
        limit=limit, unit="x",
        detail="not measured in turns: a machine that changed its speed looks the same",
    )  # fmt: skip
    return Found(judged=judged, candidate=new, baseline=old, noise=None, clock="wall", wall=ratio)


def _figures(side: Side, request: GateRequest, device: Device, progress: Progress) -> Measurement:
    if side.stored is not None:
        return side.stored
    assert side.artifact is not None
    progress.stage("Measuring")
    sampling = replace(PAIRS, trials=STORED_TRIALS, threads=request.threads)
    return device.measure((side.artifact,), sampling, progress)[0]


def target_named(name: str) -> Target:
    """A target that can be measured.

    Raises:
        InputError: unknown, or only predicted.
    """
    target: Target = registry.find("targets", "TARGET", name)
    if target.calibration is not None:
        raise InputError(f"target '{name}' is predicted, and a gate measures", hint="--target host")
    return target
