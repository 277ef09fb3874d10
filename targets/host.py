"""This machine's CPU: the target that everyone has.

Files are measured by the C runner where it can be built and knows the installed libraries, else by Python.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from targets._shared.conditions import read_conditions
from targets._shared.driving import Driver, driver_of, run_job
from targets._shared.packages import PACKAGES
from targets._shared.runner import Job, Model
from targets._shared.timing import probe_layers
from toolchain.contracts import Progress, Runtime, Sampling, Target
from toolchain.errors import DeviceError
from toolchain.latency.intervals import Trial, summarise
from toolchain.values import Artifact, Conditions, Layer, Measurement, Precision

# Measured on x86-64 with AVX-512: float kernels write outputs 16 channels at a time (24 cost as much as 32)
# but gain from single inputs; ONNX Runtime's integer kernels are at their best when outputs are multiples of
# 16, and take slow code paths when widths are not multiples of 4. So: multiples of 4, and the layer timings
# tell which of them pay.
_RUNTIMES: Final = (
    Runtime(name="onnxruntime", format="onnx", precisions=("fp32", "int8"), align=4, mixed=True),
    Runtime(name="litert", format="tflite", precisions=("fp32", "int8"), align=4, mixed=True),
)
LEAST: Final = 5
"""Runs of a trial at least, however long one takes."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The CPU this program runs on. A measuring process that is silent for `silence_seconds` is killed.

    `driver` is what measures files: the C runner, Python, or (auto) the runner where it is possible.
    """

    silence_seconds: float = 300.0
    driver: Driver = "auto"

    def conditions(self, runtime: Runtime, threads: int) -> Conditions:
        """What this machine is and the state it is in now."""
        found = read_conditions(
            device="host",
            runtime=runtime.name,
            distribution=PACKAGES[runtime.name].distribution,
            threads=threads,
        )
        return replace(found, driver=driver_of((runtime.name,), self.driver))

    def measure(
        self, artifacts: Sequence[Artifact], protocol: Sampling, progress: Progress
    ) -> tuple[Measurement, ...]:
        """Interleaved measurement of all `artifacts` in a process of their own, fresh sessions every trial.

        The time of one run is what an application sees: inputs handed in, inference, outputs handed out.

        Raises:
            DeviceError: a file or a runtime's package is missing, or the measurement did not complete.
        """
        if not artifacts:
            return ()
        for artifact in artifacts:
            _require(artifact)
        driver = driver_of([artifact.runtime for artifact in artifacts], self.driver)
        before = {
            a.runtime: replace(self.conditions(_runtime(a.runtime), protocol.threads), driver=driver)
            for a in artifacts
        }
        total, done = protocol.trials * len(artifacts), 0

        def advance(record: Mapping[str, Any]) -> None:
            nonlocal done
            if record["type"] == "trial":
                done += 1
                progress.step(done, total, artifacts[record["model"]].path.name)

        records = run_job(
            _job(artifacts, protocol),
            driver=self.driver,
            silence_seconds=self.silence_seconds,
            on_record=advance,
        )
        return tuple(
            _measurement(artifact, index, records, before[artifact.runtime])
            for index, artifact in enumerate(artifacts)
        )

    def probe(
        self,
        runtime: Runtime,
        precision: Precision,
        layers: Sequence[Layer],
        *,
        threads: int,
        progress: Progress,
    ) -> tuple[float | None, ...]:
        """Kernel milliseconds of single layers at batch 1, in the order of `layers`; None: not possible.

        Raises:
            DeviceError: the runtime's package is missing, or the timing did not complete.
        """
        _require_package(runtime, "time layers")
        return probe_layers(
            runtime.name,
            precision,
            layers,
            threads=threads,
            silence_seconds=self.silence_seconds,
            progress=progress,
        )


def connect() -> Host:
    """This machine; nothing to connect to."""
    return Host()


def _job(artifacts: Sequence[Artifact], sampling: Sampling) -> Job:
    return Job(
        models=tuple(Model(runtime=a.runtime, path=str(a.path.resolve())) for a in artifacts),
        threads=sampling.threads,
        trials=sampling.trials,
        least=min(LEAST, sampling.runs),
        most=sampling.runs,
        seconds=sampling.trial_seconds,
        warmup=sampling.warmup,
        warmup_seconds=sampling.trial_seconds,
    )


def _measurement(
    artifact: Artifact, index: int, records: Sequence[Mapping[str, Any]], conditions: Conditions
) -> Measurement:
    mine = [r for r in records if r["type"] == "trial" and r["model"] == index]
    affinity = next((r["affinity"] for r in records if r["type"] == "begin"), None)
    trials = [
        Trial(
            wall_ms=_ms(r["wall_ns"]),
            cpu_ms=_ms(r["cpu_ns"]),
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
    return replace(whole, peak_bytes=max(peaks, default=None))


def _require(artifact: Artifact) -> None:
    """The file and the package that runs it are there."""
    _require_package(_runtime(artifact.runtime), f"measure {artifact.path.name}")
    if not artifact.path.exists():
        raise DeviceError(f"no file to measure at {artifact.path}")


def _require_package(runtime: Runtime, purpose: str) -> None:
    package = PACKAGES[runtime.name]
    if importlib.util.find_spec(package.module) is None:
        raise DeviceError(
            f"target 'host' needs the package {package.distribution} to {purpose}",
            hint=f"pip install 'edgefit[{package.extra}]'",
        )


def _runtime(name: str) -> Runtime:
    for runtime in _RUNTIMES:
        if runtime.name == name:
            return runtime
    known = ", ".join(runtime.name for runtime in _RUNTIMES)
    raise DeviceError(f"target 'host' does not run '{name}' models", hint=f"it runs {known}")


def _ms(nanoseconds: Sequence[int]) -> tuple[float, ...]:
    return tuple(ns / 1e6 for ns in nanoseconds)


TARGET: Final = Target(
    name="host",
    summary="this machine's CPU, through onnxruntime and LiteRT",
    runtimes=_RUNTIMES,
    connect=connect,
)
