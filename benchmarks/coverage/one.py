"""One network in a process of its own: capture, prune half of every group, compare with the mask oracle.

python -m benchmarks.coverage.one NAME RESULT.json          this toolchain
python -m benchmarks.coverage.one NAME RESULT.json --rival  torch-pruning, times only
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.coverage import zoo
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse, examine
from toolchain.program.cost import cost, layers, planned_cost
from toolchain.program.rewrite import apply, mask
from toolchain.values import Channels, Program

LIMIT = 1e-6
RATIO = 0.5
BATCH = 2


def measure(name: str) -> dict[str, Any]:
    """Seconds of each step, the deviation from the oracle, the prunable share, memory of analysis and cut."""
    module, shape = zoo.build(name, side_px=zoo.small_side_px(name))
    module = module.double()
    example = torch.randn(BATCH, *shape, dtype=torch.float64)
    program, capture_s = timed(lambda: capture(module, (example,), name=name))
    parameter_bytes = sum(p.numel() * p.element_size() for p in program.module.parameters())
    before = restart_peak()
    channels, analysis_s = timed(lambda: analyse(program))
    keep = half(channels)
    small, pruning_s = timed(lambda: apply(program, channels, keep))
    rise = None if before is None else resident("VmHWM") - before
    off, batch = deviation(program, channels, keep, small)
    counts = {group: len(units) for group, units in keep.items()}
    planned, found, whole = planned_cost(program, channels, counts), cost(small), cost(program)
    prunable, total = share(program, channels)
    return {
        "status": "equal" if off < LIMIT and planned == found else "differs",
        "deviation": off,
        "batch": batch,
        "planned_cost_equal": planned == found,
        "prunable": prunable,
        "channels": total,
        "groups": len(channels.groups),
        "nodes": len(program.module.graph.nodes),
        "macs_kept": found.macs / whole.macs,
        "unknown_operators": dict(examine(program).tracing.unknown),
        "capture_s": capture_s,
        "analysis_s": analysis_s,
        "pruning_s": pruning_s,
        "parameter_bytes": parameter_bytes,
        "peak_rise_bytes": rise,
    }


def rival(name: str) -> dict[str, Any]:
    """torch-pruning's own analysis and pruning of the same module, its outputs not checked."""
    try:
        import torch_pruning
    except ImportError:
        return {"status": "not installed"}
    module, shape = zoo.build(name, side_px=zoo.small_side_px(name))
    example = torch.randn(BATCH, *shape)
    last = [m for m in module.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]

    def analysed() -> Any:
        return torch_pruning.pruner.BasePruner(
            module,
            example,
            importance=torch_pruning.importance.RandomImportance(),
            pruning_ratio=RATIO,
            ignored_layers=[last],
        )

    pruner, analysis_s = timed(analysed)
    _, pruning_s = timed(pruner.step)
    with torch.no_grad():
        module(example)
    return {"status": "ran", "analysis_s": analysis_s, "pruning_s": pruning_s}


def half(channels: Channels, seed: int = 0) -> dict[str, tuple[int, ...]]:
    """A random half of every group, at least its minimum."""
    draw = random.Random(seed)
    return {
        g.name: tuple(sorted(draw.sample(range(g.size), max(g.minimum, round(g.size * RATIO)))))
        for g in channels.groups
    }


def deviation(
    program: Program, channels: Channels, keep: dict[str, tuple[int, ...]], small: Program
) -> tuple[float, int]:
    """The largest difference of any output relative to its largest element, at the batch it was run with."""
    masked = mask(program, channels, keep)
    batch = 3 if program.inputs[0].shape[0] is None else BATCH
    inputs = example_inputs(program, batch, seed=1)
    with torch.no_grad():
        pairs = zip(outputs(small.module(*inputs)), outputs(masked.module(*inputs)), strict=True)
        return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)) for a, b in pairs), batch


def outputs(found: Any) -> tuple[Tensor, ...]:
    """All tensors of what a network returns."""
    if isinstance(found, Tensor):
        return (found,)
    values = found.values() if isinstance(found, dict) else found
    return tuple(t for value in values for t in outputs(value))


def share(program: Program, channels: Channels) -> tuple[int, int]:
    """Output channels of layers in a group of at least 2 units, and of all that do not reach an output."""
    own = {layer.weight: layer.out_channels for layer in layers(program)}
    free = {
        (m.parameter, position)
        for g in channels.groups
        if g.size > 1
        for m in g.members
        if m.parameter in own and m.dim == 0
        for unit in m.index
        for position in unit
    }
    ends = sum(f.count for f in channels.frozen if f.dim == 0 and f.parameter in own and "output" in f.reason)
    return len(free), sum(own.values()) - ends


def timed(step: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the seconds of wall time."""
    start = time.perf_counter()
    result = step()
    return result, time.perf_counter() - start


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


def main() -> int:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    name, out = sys.argv[1:3]
    found = rival(name) if "--rival" in sys.argv else measure(name)
    Path(out).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
