"""Who measures on this machine: the C runner, or Python where the runner cannot be had."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from targets._shared.process import Record, converse, follow
from targets._shared.runner import Job, usable, version
from toolchain.errors import DeviceError

Driver = Literal["auto", "runner", "python"]


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


def run_job(
    job: Job,
    *,
    driver: Driver,
    silence_seconds: float,
    on_record: Callable[[Record], None],
) -> tuple[Record, ...]:
    """The records that this machine answers to `job`; its libraries are the installed ones.

    Raises:
        DeviceError: as `follow`, or Python has to measure and cannot do what is asked.
    """
    runtimes = [model.runtime for model in job.models]
    if driver_of(runtimes, driver) == "python":
        if job.cadence_hz or job.max_celsius or job.min_battery:
            raise DeviceError(
                "a cadence and a thermal gate need the C runner, which cannot be had here",
                hint="edgefit doctor --target host says what is missing",
            )
        return converse(_request(job), silence_seconds=silence_seconds, on_record=on_record)
    found = usable(runtimes)
    assert found is not None
    program, libraries = found
    job = replace(job, libraries=libraries)
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


def _request(job: Job) -> dict[str, Any]:
    """The same job for the Python measuring process."""
    keys = ("trials", "windows", "turns", "least", "most", "seconds", "warmup", "warmup_seconds", "threads")
    models = [{"runtime": model.runtime, "path": model.path} for model in job.models]
    return {"job": "measure", "models": models} | {key: getattr(job, key) for key in keys}
