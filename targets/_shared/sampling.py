"""From what the runner or Python answered to the `Measurement` of each file: the same for every device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from targets._shared.placement import placement
from targets._shared.runner import Job, Model
from toolchain.contracts import Progress, Sampling
from toolchain.latency.intervals import Trial, summarise
from toolchain.values import Artifact, Conditions, Measurement

LEAST: Final = 5
"""Runs of a trial at least, however long one takes."""


def job_for(artifacts: Sequence[Artifact], paths: Sequence[str], sampling: Sampling) -> Job:
    """The job that measures `artifacts`, which lie at `paths` on the device."""
    return Job(
        models=tuple(Model(runtime=a.runtime, path=p) for a, p in zip(artifacts, paths, strict=True)),
        threads=sampling.threads,
        trials=sampling.trials,
        least=min(LEAST, sampling.runs),
        most=sampling.runs,
        seconds=sampling.trial_seconds,
        turns=sampling.turns,
        warmup=sampling.warmup,
        warmup_seconds=sampling.trial_seconds,
        placement=int(sampling.placement),
    )


def stepping(
    artifacts: Sequence[Artifact], sampling: Sampling, progress: Progress
) -> Callable[[Mapping[str, Any]], None]:
    """Called with each record, tells `progress` how many trials are done."""
    total, done = sampling.trials * len(artifacts), 0

    def advance(record: Mapping[str, Any]) -> None:
        nonlocal done
        if record["type"] == "trial":
            done += 1
            progress.step(done, total, artifacts[record["model"]].path.name)

    return advance


def measurement(
    artifact: Artifact, index: int, records: Sequence[Mapping[str, Any]], conditions: Conditions
) -> Measurement:
    """What the records of model number `index` come to; the affinity is the one they begin with."""
    mine = [r for r in records if r["type"] == "trial" and r["model"] == index]
    affinity = next((r["affinity"] for r in records if r["type"] == "begin"), None)
    trials = [
        Trial(
            wall_ms=_ms(r["wall_ns"]),
            cpu_ms=_ms(r.get("cpu_ns", ())),
            load_ms=r["load_ns"] / 1e6,
            first_ms=r["first_ns"] / 1e6,
        )
        for r in sorted(mine, key=lambda r: r["trial"])
    ]
    whole = summarise(
        trials,
        label=artifact.path.name,
        sha256=artifact.sha256,
        runtime=artifact.runtime,
        precision=artifact.precision,
        conditions=replace(conditions, affinity=None if affinity is None else tuple(affinity)),
    )
    alone = all(r["model"] == index for r in records if r["type"] == "trial")
    peaks = [r["peak_bytes"] for r in mine if alone and r.get("peak_bytes") is not None]
    told = placement(records, index, artifact.path)
    return replace(whole, peak_bytes=max(peaks, default=None), placement=told)


def _ms(nanoseconds: Sequence[int]) -> tuple[float, ...]:
    return tuple(ns / 1e6 for ns in nanoseconds)
