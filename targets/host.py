"""This machine's CPU: the target that everyone has.

Files are measured by the C runner where it can be built and knows the installed libraries, else by Python.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from targets._shared.conditions import read_conditions
from targets._shared.driving import Driver, driver_of, run_job
from targets._shared.packages import PACKAGES
from targets._shared.sampling import job_for, measurement, stepping
from targets._shared.timing import ask_here, probe_layers
from toolchain.contracts import Progress, Runtime, Sampling, Target
from toolchain.errors import DeviceError
from toolchain.values import Artifact, Conditions, Layer, Measurement, Precision

# Measured on x86-64 with AVX-512: float kernels write outputs 16 channels at a time (24 cost as much as 32)
# but gain from single inputs; ONNX Runtime's integer kernels are at their best when outputs are multiples of
# 16, and take slow code paths when widths are not multiples of 4. So: multiples of 4, and the layer timings
# tell which of them pay.
_RUNTIMES: Final = (
    Runtime(name="onnxruntime", format="onnx", precisions=("fp32", "int8"), align=4, mixed=True),
    Runtime(name="litert", format="tflite", precisions=("fp32", "int8"), align=4, mixed=True),
)


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
        records = run_job(
            job_for(artifacts, [str(a.path.resolve()) for a in artifacts], protocol),
            driver=self.driver,
            silence_seconds=self.silence_seconds,
            on_record=stepping(artifacts, protocol, progress),
        )
        return tuple(
            measurement(artifact, index, records, before[artifact.runtime])
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
            ask=ask_here(threads, self.silence_seconds),
            progress=progress,
        )


def connect() -> Host:
    """This machine; nothing to connect to."""
    return Host()


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


TARGET: Final = Target(
    name="host",
    summary="this machine's CPU, through onnxruntime and LiteRT",
    runtimes=_RUNTIMES,
    connect=connect,
)
