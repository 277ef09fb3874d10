"""Times single layers with a local runtime: writes the probe files, has the measuring process run them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from targets._shared import probes_onnx, probes_tflite
from targets._shared.process import converse
from toolchain.contracts import Progress
from toolchain.errors import DeviceError
from toolchain.values import Layer, Precision

SESSIONS: Final = 3
RUNS: Final = 50
SECONDS: Final = 0.5
# Layers side by side in one file: few enough that their weights do not fill the memory.
_TOGETHER, _TOGETHER_BYTES = 48, 2**26


def probe_layers(
    runtime: str,
    precision: Precision,
    layers: Sequence[Layer],
    *,
    threads: int,
    silence_seconds: float,
    progress: Progress,
) -> tuple[float | None, ...]:
    """Kernel milliseconds of each of `layers` (batch 1); None for a kind of layer that cannot be written.

    Raises:
        DeviceError: the measuring process did not complete.
    """
    writers = {"onnxruntime": _onnxruntime, "litert": _litert}
    possible = {"onnxruntime": probes_onnx.possible, "litert": probes_tflite.possible}[runtime]
    wanted = [number for number, layer in enumerate(layers) if possible(layer)]
    times: list[float | None] = [None] * len(layers)
    if wanted:
        found = writers[runtime](precision, [layers[n] for n in wanted], threads, silence_seconds, progress)
        for number, ms in zip(wanted, found, strict=True):
            times[number] = ms
    return tuple(times)


def _onnxruntime(
    precision: Precision, layers: Sequence[Layer], threads: int, silence_seconds: float, progress: Progress
) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, chunk in enumerate(_chunks(layers)):
            path = Path(folder) / f"{number}.onnx"
            probes_onnx.write(chunk, precision, path)
            files.append((path, len(chunk)))
        answers = _ask("onnxruntime", files, threads, silence_seconds, progress)
    return [ns / 1e6 for times in answers for ns in times]


def _litert(
    precision: Precision, layers: Sequence[Layer], threads: int, silence_seconds: float, progress: Progress
) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, layer in enumerate((None, *layers)):
            path = Path(folder) / f"{number}.tflite"
            probes_tflite.write(layer, precision, path)
            files.append((path, 1))
        answers = _ask("litert", files, threads, silence_seconds, progress)
    call = answers[0][0]
    return [max(times[0] - call, 0.0) / probes_tflite.COPIES / 1e6 for times in answers[1:]]


def _ask(
    runtime: str,
    files: Sequence[tuple[Path, int]],
    threads: int,
    silence_seconds: float,
    progress: Progress,
) -> list[Sequence[float]]:
    """Nanoseconds of the layers of every file, in the order of `files`."""
    request = {
        "job": "probe",
        "runtime": runtime,
        "files": [{"path": str(path), "count": count} for path, count in files],
        "threads": threads,
        "sessions": SESSIONS,
        "runs": RUNS,
        "seconds": SECONDS,
    }

    def advance(record: Mapping[str, Any]) -> None:
        if record["type"] == "probe":
            progress.step(record["file"] + 1, len(files), f"{runtime} layers")

    records = converse(request, silence_seconds=silence_seconds, on_record=advance)
    answers = [record["ns"] for record in records if record["type"] == "probe"]
    if len(answers) != len(files):
        raise DeviceError(f"{len(answers)} of {len(files)} layer timings came back from {runtime}")
    return answers


def _chunks(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Consecutive layers that fit one file."""
    chunk: list[Layer] = []
    size = 0
    for layer in layers:
        area = 1
        for side in layer.kernel:
            area *= side
        needed = 4 * layer.in_channels * layer.out_channels * area // layer.groups
        if chunk and (len(chunk) == _TOGETHER or size + needed > _TOGETHER_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(layer)
        size += needed
    if chunk:
        yield chunk
