"""What must hold for a captured network when channels are removed, each check with its deviation.

half      a random half of every group: equal to the original with the removed parameters set to zero
uneven    another random share of every group, another batch
twice     the half-pruned network analysed and pruned by half again
captured  the half-pruned network through torch.export again: the same outputs, the same groups
"""

from __future__ import annotations

import gc
import random
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.cost import cost, planned_cost
from toolchain.program.rewrite import apply, mask
from toolchain.values import Channels, Program

LIMIT: Final = 1e-6
"""Largest deviation that counts as equal, relative to the largest element of an output, in float64."""

BATCHES: Final = {"half": 3, "uneven": 1, "twice": 4, "captured": 5}
Keep = Mapping[str, tuple[int, ...]]


def checks(program: Program) -> dict[str, dict[str, Any]]:
    """Every check of a program by name: `status` ("equal", "differs", "failed") and what was found."""
    channels = analyse(program)
    keep = half(channels)
    small = apply(program, channels, keep)
    steps: dict[str, Callable[[int], dict[str, Any]]] = {
        "half": lambda batch: against_mask(program, channels, keep, batch, small),
        "uneven": lambda batch: against_mask(program, channels, uneven(channels), batch),
        "twice": lambda batch: pruned_again(small, batch),
        "captured": lambda batch: captured_again(small, batch),
    }
    return {name: attempt(step, batch_of(program, BATCHES[name])) for name, step in steps.items()}


def half(channels: Channels, seed: int = 0) -> dict[str, tuple[int, ...]]:
    """A random half of every group, at least its minimum."""
    return drawn(channels, lambda draw: 0.5, seed)


def uneven(channels: Channels, seed: int = 1) -> dict[str, tuple[int, ...]]:
    """A random share of every group between a tenth and all of it."""
    return drawn(channels, lambda draw: draw.uniform(0.1, 1.0), seed)


def drawn(
    channels: Channels, share: Callable[[random.Random], float], seed: int
) -> dict[str, tuple[int, ...]]:
    """The units that every group keeps."""
    draw = random.Random(seed)
    return {
        g.name: tuple(sorted(draw.sample(range(g.size), max(g.minimum, round(g.size * share(draw))))))
        for g in channels.groups
    }


def against_mask(
    program: Program, channels: Channels, keep: Keep, batch: int, small: Program | None = None
) -> dict[str, Any]:
    """The pruned network (`small`, or made here) beside the masked original, planned cost beside its own.

    `change` is how far the masked original is from the original: a comparison in which nothing changed
    would show nothing.
    """
    small = small or apply(program, channels, keep)
    inputs = example_inputs(program, batch, seed=1)
    found = run(small, inputs)
    counts = {group: len(units) for group, units in keep.items()}
    own = cost(small)
    as_planned = planned_cost(program, channels, counts) == own
    del small
    gc.collect()  # graphs are cycles; the largest network has 5 GB of weights in float64
    wanted = run(mask(program, channels, keep), inputs)
    gc.collect()
    off, change = deviation(found, wanted), deviation(wanted, run(program, inputs))
    good = off < LIMIT and as_planned and (change > LIMIT or not keep)
    return {
        "status": "equal" if good else "differs",
        "deviation": off,
        "change": change,
        "planned_cost_equal": as_planned,
        "batch": batch,
        "macs": own.macs,
        "params": own.params,
    }


def pruned_again(small: Program, batch: int) -> dict[str, Any]:
    """Half of every group of the pruned network."""
    channels = analyse(small)
    return against_mask(small, channels, half(channels, seed=2), batch)


def captured_again(small: Program, batch: int) -> dict[str, Any]:
    """The pruned network exported anew."""
    again = capture(small.module, example_inputs(small, 2), name=small.name)
    inputs = example_inputs(small, batch, seed=1)
    off = deviation(run(again, inputs), run(small, inputs))
    same = [sorted(g.size for g in analyse(p).groups) for p in (again, small)]
    shapes = [[s.shape for s in (*p.inputs, *p.outputs)] for p in (again, small)]
    good = off < LIMIT and same[0] == same[1] and shapes[0] == shapes[1]
    return {
        "status": "equal" if good else "differs",
        "deviation": off,
        "batch": batch,
        "groups_equal": same[0] == same[1],
        "shapes_equal": shapes[0] == shapes[1],
    }


def attempt(step: Callable[[int], dict[str, Any]], batch: int) -> dict[str, Any]:
    """What the check found, or where and how it broke."""
    try:
        return step(batch)
    except Exception as error:  # noqa: BLE001 (whatever a network does to the toolchain is a result)
        return {"status": "failed", "reason": cause(error)}


def cause(error: BaseException) -> str:
    """Kind and first line of an error, and the innermost line of this project that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/toolchain/" in f.filename or "/benchmarks/" in f.filename]
    where = f" ({ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno})" if ours else ""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300]}{where}"


def batch_of(program: Program, batch: int) -> int:
    """`batch`, or the only one that the program takes."""
    fixed = program.inputs[0].shape[0]
    return batch if fixed is None else fixed


def run(program: Program, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """All outputs."""
    with torch.no_grad():
        found = program.module(*inputs)
    return (found,) if isinstance(found, Tensor) else tuple(found)


def deviation(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The largest difference of any output relative to its largest element; infinite where shapes differ."""
    pairs = list(zip(found, wanted, strict=True))
    if any(a.shape != b.shape or not bool(a.isfinite().all()) for a, b in pairs):
        return float("inf")
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)) for a, b in pairs)
