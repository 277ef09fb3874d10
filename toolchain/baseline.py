"""The network as handed in: its metric, its files, its times in every runtime, and what int8 alone costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from toolchain.assembly import (
    FLOAT_OF,
    format_named,
    missing_packages,
    open_session,
    quantizers,
    runner,
)
from toolchain.contracts import Sampling
from toolchain.errors import InputError
from toolchain.program.capture import fingerprint
from toolchain.program.cost import cost
from toolchain.run import Combination, Run, build_for, measure, note_disturbed, remembered_score
from toolchain.train.metric import Score, evaluate, program_runner
from toolchain.values import Artifact, Cost, Measurement, Precision

QUANTIZATION_DROP: Final = 1.0
"""Points that quantization alone may cost when --max-drop does not say otherwise."""
BASELINE: Final = Sampling(trials=8, runs=50, trial_seconds=0.4)
SCORED: Final = 2000
"""Validation samples on which the quantized original is judged."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The network as handed in: its metric, cost, files, times and what quantization alone costs."""

    score: Score | None
    cost: Cost
    artifacts: Mapping[Combination, Artifact]
    measurements: Mapping[Combination, Measurement]
    drops: Mapping[Combination, float]


def measure_baseline(
    run: Run, combinations: Sequence[Combination], *, sampling: Sampling = BASELINE, scored: bool = True
) -> Baseline:
    """Metric (where `scored`), cost, files and latency of the original in every combination."""
    identity = fingerprint(run.program)
    score = None
    if run.data is not None and scored:
        data = run.data
        with run.stage("Metric of the original", "evaluate"):
            inputs = [identity, data.fingerprint(), run.metric.name, run.request.preprocessing]
            score = remembered_score(
                run, "score", inputs, lambda: evaluate(program_runner(run.program), data, run.metric)
            )
    with run.stage("Files of the original", "candidates"):
        artifacts = build_for(run, run.program, combinations)
    with run.stage("Latency of the original", "measure"):
        times = measure(run, list(artifacts.values()), sampling)
    for found in times:
        note_disturbed(run, "original", found)
    measurements = dict(zip(artifacts, times, strict=True))
    drops: dict[Combination, float] = {}
    if run.data is not None:
        with run.stage("Metric of the quantized original", "evaluate"):
            drops = {c: quantization_drop(run, a) for c, a in artifacts.items() if a.precision == "int8"}
    return Baseline(
        score=score, cost=cost(run.program), artifacts=artifacts, measurements=measurements, drops=drops
    )


def quantization_drop(run: Run, artifact: Artifact) -> float:
    """Points of the metric that quantization costs, on the same validation samples."""
    assert run.data is not None
    data = run.data

    def of_file() -> Score:
        session = open_session(artifact)
        assert session is not None
        return evaluate(runner(session), data, run.metric, limit=SCORED)

    def of_program() -> Score:
        return evaluate(program_runner(run.program), data, run.metric, limit=SCORED)

    key = [data.fingerprint(), run.metric.name, SCORED, run.request.preprocessing]
    quantized = remembered_score(run, "score", [artifact.sha256, *key], of_file)
    original = remembered_score(run, "score", [fingerprint(run.program), *key], of_program)
    return run.metric.lost(original.value, quantized.value)


def combinations(run: Run) -> tuple[Combination, ...]:
    """Every (runtime, precision) of the target that the request allows; int8 needs calibration data.

    Raises:
        InputError: there is none, or a package that the only runtime asked for needs is not installed.
    """
    wanted = run.request.runtime
    known = [r.name for r in run.target.runtimes]
    if wanted != "auto" and wanted not in known:
        raise InputError(
            f"target '{run.target.name}' has no runtime '{wanted}'", hint=f"known: {', '.join(known)}"
        )
    pairs: list[Combination] = []
    asked = [r for r in run.target.runtimes if wanted in ("auto", r.name)]
    usable = [r for r in asked if not missing_packages(r.format)]
    if not usable:
        missing = ", ".join(missing_packages(asked[0].format))
        raise InputError(
            f"runtime '{asked[0].name}' needs {missing}, which is not installed",
            hint=f"pip install 'edgefit[{format_named(asked[0].format).extra}]'",
        )
    for runtime in asked:
        if runtime not in usable:
            extra = format_named(runtime.format).extra
            _say(run, f"{runtime.name} is not installed: not used (pip install 'edgefit[{extra}]' brings it)")
        else:
            allowed = [p for p in runtime.precisions if p in _asked(run)]
            if run.material.samples is None:
                allowed = [p for p in allowed if not _needs_data(runtime.format, p)]
            pairs += [(runtime.name, p) for p in allowed]
    if not pairs:
        raise InputError(
            f"no runtime of target '{run.target.name}' can use precision {', '.join(run.request.precisions)}",
            hint="int8 needs --data to calibrate; or allow fp32 with --precision",
        )
    return tuple(pairs)


def _asked(run: Run) -> set[Precision]:
    """The request's precisions; mixed precision begins with none of the layers in float."""
    asked = set(run.request.precisions)
    return asked | {"int8"} if "mixed" in asked else asked


def _needs_data(format_name: str, precision: Precision) -> bool:
    return precision != FLOAT_OF[format_name] and quantizers(format_name)[precision].needs_data


def allowed_drop(run: Run) -> float:
    """Points that quantization alone may cost."""
    allowed = run.request.budget.max_drop
    return QUANTIZATION_DROP if allowed is None else allowed


def acceptable(run: Run, baseline: Baseline, combination: Combination) -> bool:
    """Whether a quantized combination is faster than float in its runtime and costs few enough points."""
    name, precision = combination
    if precision == "fp32":
        return True
    if run.request.budget.ms is not None and slower_than_float(baseline, combination):
        times = [baseline.measurements[c].p50_ms for c in (combination, (name, "fp32"))]
        against = f"{times[0]:.3f} against {times[1]:.3f} ms"
        _say(run, f"{precision} is slower than fp32 in {name} ({against}): not used")
        return False
    allowed = allowed_drop(run)
    drop = baseline.drops.get(combination, 0.0)
    if drop > allowed:
        _say(run, f"{precision} in {name} costs {drop:.2f} points by itself (allowed: {allowed:g}): not used")
        return False
    return True


def slower_than_float(baseline: Baseline, combination: Combination) -> bool:
    """Whether a combination is no faster than float in its runtime, as far as float was measured."""
    plain = baseline.measurements.get((combination[0], "fp32"))
    return plain is not None and baseline.measurements[combination].p50_ms >= plain.p50_ms


def _say(run: Run, note: str) -> None:
    if note not in run.notes:
        run.notes.append(note)
