"""This machine, through the C runner or, where it cannot be had, Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from targets._shared.benching import job_of, steps
from targets._shared.conditions import installed_version, read_conditions
from targets._shared.driving import Driver, driver_of, run_job
from targets._shared.packages import PACKAGES
from targets._shared.placement import placements
from targets._shared.runner import TRIED, installed_library, native, runner
from targets.host import TARGET
from toolchain.contracts import (
    Benched,
    BenchSettings,
    Checked,
    Device,
    ModelFile,
    Need,
    Progress,
    Reachable,
    Route,
)
from toolchain.errors import DeviceError
from toolchain.plain import to_plain

SILENCE_SECONDS: Final = 600.0


@dataclass(frozen=True, kw_only=True)
class ThisMachine:
    """The CPU that this program runs on; `driver` as in `targets.host.Host`."""

    driver: Driver = "auto"
    runtimes = TARGET.runtimes

    def bench(self, files: Sequence[ModelFile], settings: BenchSettings, progress: Progress) -> Benched:
        """Interleaved trials of all `files` in one process, pinned to one core where one thread is asked for.

        Raises:
            DeviceError: a runtime's package is missing, or the measurement is not complete.
        """
        runtimes = sorted({file.runtime for file in files})
        for runtime in runtimes:
            _require(runtime)
        driver = driver_of(runtimes, self.driver)
        job = job_of(files, settings, [str(file.path.resolve()) for file in files])
        before = _state(runtimes[0], settings.threads)
        records = run_job(
            job,
            driver=self.driver,
            silence_seconds=SILENCE_SECONDS + job.seconds,
            on_record=steps(progress, job, [file.path.name for file in files]),
        )
        begin, *trials, end = records
        return Benched(
            device="host",
            driver=driver,
            versions={runtime: installed_version(PACKAGES[runtime].distribution) for runtime in runtimes},
            before=begin.get("conditions", before),
            after=end.get("conditions") or _state(runtimes[0], settings.threads),
            records=tuple(record for record in trials if record["type"] == "trial"),
            placements=placements(trials, [file.path for file in files]),
        )

    def check(self, files: Sequence[ModelFile], progress: Progress) -> tuple[Checked, ...]:
        """Nothing to compare this machine with."""
        return tuple(Checked(parity=None) for _ in files)

    def device(self) -> Device:
        """This machine, to plan for."""
        return TARGET.connect()


def _state(runtime: str, threads: int) -> dict[str, Any]:
    """This machine's conditions as Python reads them."""
    found = read_conditions(
        device="host", runtime=runtime, distribution=PACKAGES[runtime].distribution, threads=threads
    )
    plain: dict[str, Any] = to_plain(found)
    return plain


def _require(runtime: str) -> None:
    if installed_version(PACKAGES[runtime].distribution) is None:
        extra = "onnx" if runtime == "onnxruntime" else "tflite"
        raise DeviceError(
            f"device 'host' needs the package {PACKAGES[runtime].distribution} to run {runtime} files",
            hint=f"pip install 'edgefit[{extra}]'",
        )


def _open(rest: str) -> ThisMachine:
    if rest:
        raise DeviceError(f"unknown device {'host:' + rest!r}", hint="this machine is --device host")
    return ThisMachine()


def _needs() -> tuple[Need, ...]:
    """The runner and the libraries that it opens; what is missing here, Python does."""
    needs = []
    try:
        needs.append(Need(name="the C runner", found=runner().name, hint=""))
    except DeviceError as error:
        needs.append(Need(name="the C runner", found="", hint=error.hint))
    for name, tried in TRIED.items():
        library = installed_library(name)
        hint = f"pip install '{PACKAGES[name].distribution}=={tried[0]}*'"
        needs.append(Need(name=f"library of {name}", found=library.version if library else "", hint=hint))
    return tuple(needs)


def _found() -> tuple[Reachable, ...]:
    missing = [need for need in _needs() if not need.found]
    by = "by Python" if missing else "by the C runner"
    return (Reachable(device="host", summary=f"this machine, {native()}, {by}"),)


ROUTE: Final = Route(
    name="host",
    form="host",
    summary="this machine's CPU, by the C runner",
    open=_open,
    found=_found,
    needs=_needs,
)
