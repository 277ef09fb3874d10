"""Who measures on this machine: the C runner, or Python where the runner cannot be had."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from targets._shared.process import Record, converse, follow
from targets._shared.runner import Job, Model, usable, version
from toolchain.contracts import Sampling
from toolchain.errors import DeviceError

Driver = Literal["auto", "runner", "python"]
LEAST = 5
"""Runs of a trial at least, however long one takes: as many as the Python measuring process makes."""


def driver_of(runtimes: Sequence[str], wanted: Driver = "auto") -> str:
    """What measures files of these runtimes: "runner VERSION" or "python".

    Raises:
        DeviceError: the runner is wanted and cannot be had.
    """
    if wanted == "python" or (usable(runtimes) is None and wanted == "auto"):
        return "python"
    if usable(runtimes) is None:
        raise DeviceError(
            "the C runner cannot be had for " + ", ".join(sorted(set(runtimes))),
            hint="edgefit doctor --target host says what is missing",
        )
    return f"runner {version()}"


def run_trials(
    files: Sequence[tuple[str, str]],
    sampling: Sampling,
    *,
    driver: Driver,
    silence_seconds: float,
    on_record: Callable[[Record], None],
) -> tuple[Record, ...]:
    """The records of an interleaved measurement of `files` (runtime, path), all by the same driver.

    Raises:
        DeviceError: as `follow`.
    """
    runtimes = [runtime for runtime, _ in files]
    if driver_of(runtimes, driver) == "python":
        request = _request(files, sampling)
        return converse(request, silence_seconds=silence_seconds, on_record=on_record)
    found = usable(runtimes)
    assert found is not None
    program, libraries = found
    job = Job(
        libraries=libraries,
        models=tuple(Model(runtime=runtime, path=path) for runtime, path in files),
        threads=sampling.threads,
        trials=sampling.trials,
        least=min(LEAST, sampling.runs),
        most=sampling.runs,
        seconds=sampling.trial_seconds,
        warmup=sampling.warmup,
        warmup_seconds=sampling.trial_seconds,
    )
    return follow_job(program, job, silence_seconds=silence_seconds, on_record=on_record)


def follow_job(
    program: Path,
    job: Job,
    *,
    silence_seconds: float,
    on_record: Callable[[Record], None],
    before: Sequence[str] = (),
) -> tuple[Record, ...]:
    """The records that the runner answers to `job`; `before` is put in front of its command.

    Raises:
        DeviceError: as `follow`.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job"
        file.write_text(job.text(), encoding="utf-8")
        command = [*before, str(program), str(file)]
        return follow(command, silence_seconds=silence_seconds, on_record=on_record)


def _request(files: Sequence[tuple[str, str]], sampling: Sampling) -> dict[str, Any]:
    return {
        "job": "measure",
        "models": [{"runtime": runtime, "path": path} for runtime, path in files],
        "trials": sampling.trials,
        "runs": sampling.runs,
        "warmup": sampling.warmup,
        "trial_seconds": sampling.trial_seconds,
        "threads": sampling.threads,
    }
