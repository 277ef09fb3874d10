"""What all routes do alike when they bench: the job of a tier, and progress from its records."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from targets._shared.process import Record
from targets._shared.runner import Job, Model
from toolchain.contracts import BenchSettings, ModelFile, Progress

WARMUP_SECONDS = 2.0


def job_of(
    files: Sequence[ModelFile], settings: BenchSettings, paths: Sequence[str], *, hashed: bool = False
) -> Job:
    """The job that benches `files`, at `paths` on the device; `hashed`: the runner checks their content.

    The runs and seconds of the tier are spread evenly over its sessions and windows.
    """
    tier = settings.tier
    parts = tier.trials * tier.windows
    return Job(
        models=tuple(
            Model(runtime=file.runtime, path=path, sha256=file.sha256 if hashed else None)
            for file, path in zip(files, paths, strict=True)
        ),
        threads=settings.threads,
        trials=tier.trials,
        windows=tier.windows,
        least=math.ceil(tier.runs / parts),
        seconds=tier.seconds / parts,
        warmup_seconds=WARMUP_SECONDS,
        cadence_hz=settings.cadence_hz or 0.0,
        max_celsius=settings.max_celsius or 0.0,
        cool_seconds=600.0 if settings.max_celsius else 0.0,
        placement=1,
    )


def steps(progress: Progress, job: Job, names: Sequence[str]) -> Callable[[Record], None]:
    """Called with each record, tells `progress` how many windows are done."""
    total, done = job.trials * job.windows * len(job.models), 0

    def advance(record: Record) -> None:
        nonlocal done
        if record["type"] == "trial":
            done += 1
            progress.step(done, total, names[record["model"]])

    return advance
