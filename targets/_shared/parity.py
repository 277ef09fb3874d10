"""Whether a file gives the same outputs on a device as on this machine, on the same inputs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from targets._shared.driving import follow_job
from targets._shared.runner import Job, Model, native, usable
from toolchain.contracts import ModelFile
from toolchain.errors import DeviceError

OUTPUTS: Final = "outputs"
ANY_CORE: Final = -2
SILENCE_SECONDS: Final = 3600.0


def parity_job(file: ModelFile, path: str, outputs: str, sessions: int = 1) -> Job:
    """Each session on a set of inputs, the same on every machine, with a warm-up of a single run."""
    return Job(
        models=(Model(runtime=file.runtime, path=path),),
        trials=sessions,
        core=ANY_CORE,
        least=1,
        most=1,
        pool=1,
        warmup=1,
        warmup_seconds=0.0,
        outputs=outputs,
    )


def outputs_here(file: ModelFile, sessions: int = 1) -> bytes | None:
    """The outputs of this machine's own kernels for the same inputs; None where the runner cannot be had."""
    found = usable((file.runtime,))
    if found is None:
        return None
    program, libraries = found
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder) / OUTPUTS
        job = parity_job(file, str(file.path.resolve()), str(outputs), sessions)
        job = replace(job, libraries=libraries)
        follow_job(program, job, silence_seconds=SILENCE_SECONDS, on_record=lambda _: None)
        return outputs.read_bytes()


def parity(there: bytes, here: bytes | None) -> dict[str, Any] | None:
    """How far float outputs are apart: largest difference over largest value, and the share of equal ones.

    Outputs of other types are compared byte by byte, where only `equal_share` means something.
    """
    if here is None:
        return None
    if len(there) != len(here):
        raise DeviceError(f"{len(there)} bytes of outputs came back, {len(here)} are expected")
    floats = len(here) % 4 == 0
    a, b = (np.frombuffer(x, np.float32 if floats else np.uint8).astype(np.float64) for x in (there, here))
    relative = float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(b))), 1e-30)) if floats else None
    return {"against": native(), "max_relative": relative, "equal_share": float(np.mean(a == b))}
