"""`edgefit noise`: one model against itself, block by block; what is found is kept with the device."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from toolchain.artifacts import place
from toolchain.contracts import Device, Progress
from toolchain.gate.comparison import Pairs
from toolchain.gate.record import GateRequest, now
from toolchain.gate.sides import Wishes, built, open_candidate
from toolchain.latency.noise import (
    TIMES,
    Noise,
    block_spread,
    identity_of,
    noise_file,
    noise_text,
    visible,
)
from toolchain.latency.paired import BLOCK
from toolchain.latency.timings import cache_folder
from toolchain.plain import to_plain
from toolchain.stages import Stages
from toolchain.values import Artifact, Program

LEAST_BLOCKS: Final = 6
TIMES_SHOWN: Final = (5, 10, 20, 30, 60, 120, 300)
"""Seconds for which the record says what can be seen."""


def measure_noise(request: GateRequest, model: Path | None, progress: Progress) -> dict[str, Any]:
    """The device's noise, schema `edgefit.noise/1`; written where `gate` finds it.

    Args:
        request: only target, threads, clock and time are read.
        model: measured against itself; None: a small network of four convolutions.
        progress: told of every trial.

    Raises:
        CompressError: the model cannot be opened or measured, or the result not kept.
    """
    wishes = request.wishes
    device = wishes.target.connect()
    with tempfile.TemporaryDirectory(prefix="edgefit-noise-") as folder:
        progress.stage("Opening the model")
        stages = Stages(root=Path(folder))
        file = _reference(wishes, stages) if model is None else open_candidate(model, wishes, stages).artifact
        assert file is not None
        noise = _measured(device, file, request, progress)
    path = noise_file(cache_folder(), noise.identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    place(path, lambda partial: partial.write_text(noise_text(noise), encoding="utf-8"))
    return {
        "schema": "edgefit.noise/1",
        "target": wishes.target.name,
        "noise": to_plain(noise),
        "least_threshold": TIMES * noise.ratio,
        "visible": [{"seconds": s, "above": _finite(visible(noise, s))} for s in TIMES_SHOWN],
        "written": str(path),
    }


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value


def _measured(device: Device, file: Artifact, request: GateRequest, progress: Progress) -> Noise:
    """Blocks of A/A pairs until the time is up, `LEAST_BLOCKS` at least."""
    progress.stage("Measuring the model against itself")
    pairs = Pairs(device, (file, file), request, progress)
    start, blocks = time.monotonic(), list[list[float]]()
    while len(blocks) < LEAST_BLOCKS or time.monotonic() - start < request.seconds:
        blocks.append(pairs(BLOCK))
    assert pairs.candidate is not None
    return Noise(
        ratio=block_spread(blocks),
        blocks=len(blocks),
        seconds=(time.monotonic() - start) / len(blocks),
        model=f"{file.path.name} ({pairs.candidate.p50_ms:.3g} ms)",
        clock=pairs.clock,
        created=now(),
        identity=identity_of(pairs.candidate.conditions),
    )


def _reference(wishes: Wishes, stages: Stages) -> Artifact:
    """Four convolutions on a 64 x 64 image: about a millisecond on a CPU."""
    import torch

    from toolchain.program.capture import capture

    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for given, made, stride in ((3, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
        layers += [torch.nn.Conv2d(given, made, 3, stride, 1), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    program: Program = capture(network.eval(), (torch.randn(2, 3, 64, 64),), name="reference")
    return built(program, None, "reference", wishes, stages)
