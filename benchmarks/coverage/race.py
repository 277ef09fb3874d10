"""Seconds and memory of analysis and pruning beside torch-pruning's, on one network in one process.

Both get the same float32 module and one image of the size that the network is made for, one thread, and have
warmed up on another network. Seconds are CPU time, so that what else the machine does counts little. Outputs
are not checked here.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.coverage import zoo
from benchmarks.coverage.oracle import cause, half
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.rewrite import apply


def race(name: str, limit_s: float) -> dict[str, Any]:
    """Ours, and theirs under `rival`; torch-pruning gets `limit_s` seconds of CPU time."""
    warm = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    module, shape = zoo.build(name)
    ours(warm, torch.randn(1, 3, 16, 16))
    found = ours(module, torch.randn(1, *shape))
    try:
        with limited(limit_s):
            theirs(warm, torch.randn(1, 3, 16, 16))
            found["rival"] = theirs(module, torch.randn(1, *shape))
    except ImportError:
        found["rival"] = {"status": "not installed"}
    except TimeoutError:
        found["rival"] = {"status": "no result", "reason": f"none within {limit_s:.0f} s of CPU time"}
    except Exception as error:  # noqa: BLE001 (how another tool fails is a result)
        found["rival"] = {"status": "failed", "reason": cause(error)}
    return found


def ours(module: nn.Module, example: torch.Tensor) -> dict[str, Any]:
    """This toolchain: capture, analysis, half of every group removed."""
    program, capture_s = timed(lambda: capture(module, (example,), name="raced"))
    before = restart_peak()
    channels, analysis_s = timed(lambda: analyse(program))
    keep = half(channels)
    _, pruning_s = timed(lambda: apply(program, channels, keep))
    return {
        "capture_s": capture_s,
        "analysis_s": analysis_s,
        "pruning_s": pruning_s,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in module.parameters()),
        "peak_rise_bytes": None if before is None else resident("VmHWM") - before,
    }


def theirs(module: nn.Module, example: torch.Tensor) -> dict[str, Any]:
    """torch-pruning: dependency graph, half of the channels removed, the last layer left alone."""
    import torch_pruning

    last = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    pruner, analysis_s = timed(
        lambda: torch_pruning.pruner.BasePruner(
            module,
            example,
            importance=torch_pruning.importance.RandomImportance(),
            pruning_ratio=0.5,
            ignored_layers=[last],
        )
    )
    _, pruning_s = timed(pruner.step)
    with torch.no_grad():
        module(example)
    return {"status": "ran", "analysis_s": analysis_s, "pruning_s": pruning_s}


def timed(step: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the seconds of CPU time."""
    start = time.process_time()
    result = step()
    return result, time.process_time() - start


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TimeoutError after so much CPU time."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def restart_peak() -> int | None:
    """Resident bytes now, the kernel's peak set back to them; None where it cannot be (not Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return resident("VmRSS")
    except OSError:
        return None


def resident(field: str) -> int:
    """A memory field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field}")
