"""`edgefit bench --device --tier`: model files measured on a device that a route reaches; raw samples out."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolchain import __version__
from toolchain.artifacts import FORMAT_OF, content_hash
from toolchain.assembly import FLOAT_OF, build, material_of, quantizers, require_formats
from toolchain.contracts import (
    Benched,
    BenchSettings,
    Device,
    ModelFile,
    Progress,
    Runtime,
    Silent,
)
from toolchain.errors import InputError
from toolchain.latency.tiers import TIERS, timing
from toolchain.load import load
from toolchain.plain import to_plain
from toolchain.reaching import connect
from toolchain.stages import Stages
from toolchain.train.data import open_data
from toolchain.values import Request


def is_model_file(path: Path) -> bool:
    """Whether `path` is named as a file that a runtime opens itself."""
    return path.suffix in FORMAT_OF


def bench_on_device(
    request: Request,
    *,
    device: str = "host",
    tier: str = "quick",
    cadence_hz: float | None = None,
    max_celsius: float | None = None,
    progress: Progress | None = None,
) -> Mapping[str, Any]:
    """Measure a model file, or a network's files in every runtime of the device.

    Of a network int8 files are made only with data to calibrate on.

    Raises:
        InputError: the file, the device, the tier or the runtime is unknown.
        DeviceError: the device cannot be reached, or did not finish.
    """
    progress = progress or Silent()
    settings = BenchSettings(
        tier=_tier(tier), threads=request.threads, cadence_hz=cadence_hz, max_celsius=max_celsius
    )
    if not request.model.exists():
        raise InputError(f"no model at {request.model}")
    connection = connect(device)
    runtimes = _chosen(connection.runtimes, request.runtime)
    with tempfile.TemporaryDirectory(prefix="edgefit-bench-") as folder:
        if is_model_file(request.model):
            files = [_given(request.model, runtimes)]
        else:
            progress.stage("Files of the network")
            files = _built(request, runtimes, Path(folder))
        progress.stage(f"Measuring on {device}")
        found = connection.bench(files, settings, progress)
    there = None if found.instructions is not None else connection.device()
    return _record(files, settings, found, runtimes, there)


def _tier(name: str) -> Any:
    if name not in TIERS:
        raise InputError(f"unknown tier '{name}'", hint=f"known: {', '.join(TIERS)}")
    return TIERS[name]


def _chosen(runtimes: Sequence[Runtime], wanted: str) -> list[Runtime]:
    """All but TensorRT, which is measured alone, or the one that is wanted."""
    alone = len(runtimes) == 1
    found = [r for r in runtimes if r.name == wanted or (wanted == "auto" and (r.probed or alone))]
    if not found:
        known = ", ".join(runtime.name for runtime in runtimes)
        raise InputError(f"the device has no runtime '{wanted}'", hint=f"it has {known}")
    return found


def _given(path: Path, runtimes: Sequence[Runtime]) -> ModelFile:
    """A file as it is; nobody says which precision is in it."""
    form = FORMAT_OF[path.suffix]
    for runtime in runtimes:
        if runtime.format == form:
            return ModelFile(path=path, runtime=runtime.name, sha256=content_hash(path))
    raise InputError(
        f"no runtime chosen here runs {path.name}", hint=f"chosen: {', '.join(r.name for r in runtimes)}"
    )


def _built(request: Request, runtimes: Sequence[Runtime], folder: Path) -> list[ModelFile]:
    """The network's file for every runtime and precision that can be made."""
    require_formats([runtime.format for runtime in runtimes])
    program = load(
        request.model, input_shape=request.input_shape, arch=request.arch, trust_pickle=request.trust_pickle
    )
    data = None
    if request.data is not None:
        data = open_data(request.data, preprocessing=request.preprocessing, program_inputs=program.inputs)
    kinds = [
        ((runtime.format, precision), runtime.name)
        for runtime in runtimes
        for precision in request.precisions
        if precision in runtime.precisions
        and (
            precision == FLOAT_OF[runtime.format]
            or (data is not None and precision in quantizers(runtime.format))
        )
    ]
    if not kinds:
        named = ", ".join(request.precisions)
        raise InputError(f"no file can be made in {named}", hint="int8 needs --data to calibrate on")
    asked = list(dict.fromkeys(kind for kind, _ in kinds))
    made = build(program, asked, Stages(root=folder), material_of(program, data, request.model.name))
    return [
        ModelFile(path=a.path, runtime=runtime, sha256=a.sha256, precision=a.precision)
        for a, runtime in ((made[kind], runtime) for kind, runtime in kinds)
    ]


def _record(
    files: Sequence[ModelFile],
    settings: BenchSettings,
    found: Benched,
    runtimes: Sequence[Runtime],
    device: Device | None,
) -> dict[str, Any]:
    """The record, `edgefit.bench/1` of docs/runner.md; `conditions` are what a later gate compares by."""
    models = []
    known = {runtime.name: runtime for runtime in runtimes}
    for number, file in enumerate(files):
        mine = sorted(
            (r for r in found.records if r["model"] == number), key=lambda r: (r["trial"], r["window"])
        )
        counts = None if found.instructions is None else found.instructions[number]
        state = None if device is None else device.conditions(known[file.runtime], settings.threads)
        models.append(
            {
                "file": file.path.name,
                "sha256": file.sha256,
                "runtime": file.runtime,
                "runtime_version": found.versions.get(file.runtime),
                "precision": file.precision,
                "conditions": None if state is None else to_plain(replace(state, driver=found.driver)),
                "timing": to_plain(timing(mine, settings.tier)) if counts is None else None,
                "instructions": None if counts is None else _counted(counts),
                "parity": None if found.parity is None else to_plain(found.parity[number]),
                "placement": None if found.placements is None else to_plain(found.placements[number]),
            }
        )
    return {
        "schema": "edgefit.bench/1",
        "edgefit": __version__,
        "device": found.device,
        "driver": found.driver,
        "settings": to_plain(settings),
        "before": to_plain(found.before),
        "after": to_plain(found.after),
        "models": models,
    }


def _counted(counts: Sequence[int]) -> dict[str, Any]:
    """Instructions of an inference: least, median and most of the counted runs, and all of them."""
    return {
        "runs": len(counts),
        "min": min(counts),
        "median": statistics.median(counts),
        "max": max(counts),
        "samples": list(counts),
    }
