"""Times single layers: writes the probe files, has them run here or on a device."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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


Group = tuple[list[Path], int]
"""Files that are run together, and how many layers they hold."""
Ask = Callable[[str, Sequence[Group], Progress], Sequence[Sequence[Sequence[float]]]]
"""Nanoseconds [group][session][layer] of all layers of the groups of files of a runtime."""


def probe_layers(
    runtime: str, precision: Precision, layers: Sequence[Layer], *, ask: Ask, progress: Progress
) -> tuple[float | None, ...]:
    """Kernel milliseconds of each of `layers` (batch 1); None for a kind of layer that cannot be written.

    The median of the sessions that `ask` times.

    Raises:
        DeviceError: as `ask`, or its answer is not complete.
    """
    write = {"onnxruntime": _onnxruntime, "litert": _litert}[runtime]
    possible = {"onnxruntime": probes_onnx.possible, "litert": probes_tflite.possible}[runtime]
    wanted = [number for number, layer in enumerate(layers) if possible(layer)]
    times: list[float | None] = [None] * len(layers)
    if not wanted:
        return tuple(times)
    with tempfile.TemporaryDirectory() as folder:
        groups = [
            (write(chunk, precision, Path(folder) / str(number)), len(chunk))
            for number, chunk in enumerate(_chunks([layers[n] for n in wanted]))
        ]
        sessions = ask(runtime, groups, progress)
    found: list[float] = []
    for group, (_, count) in zip(sessions, groups, strict=True):
        if len(group) != SESSIONS or any(len(ns) != count for ns in group):
            raise DeviceError(f"{len(group)} of {SESSIONS} layer timings came back from {runtime}")
        found += [statistics.median(ns) / 1e6 for ns in zip(*group, strict=True)]
    for number, ms in zip(wanted, found, strict=True):
        times[number] = ms
    return tuple(times)


def _onnxruntime(layers: Sequence[Layer], precision: Precision, name: Path) -> list[Path]:
    path = name.with_suffix(".onnx")
    probes_onnx.write(layers, precision, path)
    return [path]


def _litert(layers: Sequence[Layer], precision: Precision, name: Path) -> list[Path]:
    paths = [name.with_name(f"{name.name}-{number}.tflite") for number in range(len(layers) + 1)]
    for path, layer in zip(paths, (None, *layers), strict=True):
        probes_tflite.write(layer, precision, path)
    return paths


def ask_here(threads: int, silence_seconds: float) -> Ask:
    """The measuring process of this machine: a session of every group before the next session of any."""

    def ask(runtime: str, groups: Sequence[Group], progress: Progress) -> list[list[Sequence[float]]]:
        request = {
            "job": "probe",
            "runtime": runtime,
            "groups": [{"paths": [str(path) for path in paths], "count": count} for paths, count in groups],
            "threads": threads,
            "sessions": SESSIONS,
            "runs": RUNS,
            "seconds": SECONDS,
        }
        sessions: list[list[Sequence[float]]] = [[] for _ in groups]

        def advance(record: Mapping[str, Any]) -> None:
            if record["type"] == "probe":
                sessions[record["group"]].append(record["ns"])
                progress.step(sum(map(len, sessions)), SESSIONS * len(groups), f"{runtime} layers")

        converse(request, silence_seconds=silence_seconds, on_record=advance)
        return sessions

    return ask


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
