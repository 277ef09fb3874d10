"""Random pruned variants of a network, made and measured as the product does it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolchain.assembly import Material
from toolchain.contest import reduce
from toolchain.contracts import Sampling, Silent
from toolchain.pipeline import open_run
from toolchain.program.capture import fingerprint
from toolchain.prune.plan import levels
from toolchain.resources import BLOCK, Shape
from toolchain.run import Combination, Run, build_for, measure
from toolchain.values import Artifact, Budget, Measurement, PrunePlan, Request

Counts = Mapping[str, int]
SAMPLING = Sampling(trials=6, runs=40, warmup=10, trial_seconds=0.25)
CALIBRATION = 4
"""Samples of noise that int8 files are calibrated with: their ranges do not matter for the time."""
SHARES = (0.15, 1.0)
SPREAD = 0.25
DROPPED = 0.15


def opened(model: Path, work: Path) -> Run:
    """The network as a run of the product on this machine."""
    run = open_run(Request(model=model, target="host", out=work / "result", budget=Budget(ms=1.0)), Silent())
    shapes = [tuple(n or CALIBRATION for n in spec.shape) for spec in run.program.inputs]
    noise = np.random.default_rng(0)
    samples = [tuple(noise.standard_normal(shape, dtype=np.float32) for shape in shapes)]
    return replace(run, material=Material(samples=samples, metadata={}, key="noise"))


def drawn(run: Run, shape: Shape, count: int, align: int) -> list[Counts]:
    """The whole network, then `count` variants of uneven aligned widths.

    The groups' shares lie within `SPREAD` around a variant's own mean, which is drawn from `SHARES`. Every
    other variant leaves out each residual block with probability `DROPPED`.
    """
    draw = random.Random(0)
    found: list[Counts] = [{}]
    for number in range(count):
        mean = draw.uniform(*SHARES)
        counts: dict[str, int] = {}
        for group in run.channels.groups:
            share = mean + draw.uniform(-SPREAD, SPREAD)
            counts[group.name] = min(levels(group, align), key=lambda n: abs(n - share * group.size))
        if number % 2:
            counts |= {BLOCK + b.name: 0 for b in shape.blocks if draw.random() < DROPPED}
        found.append(counts)
    return found


def files(run: Run, counts: Counts, combinations: Sequence[Combination]) -> dict[Combination, Artifact]:
    """The variant's files. Which units stay does not matter for the time: the first ones."""
    plan = PrunePlan(
        program=fingerprint(run.program),
        criterion="none",
        keep={n: tuple(range(c)) for n, c in counts.items() if not n.startswith(BLOCK)},
        dropped=tuple(n.removeprefix(BLOCK) for n in counts if n.startswith(BLOCK)),
    )
    program = reduce(run.program, run.channels, plan) if counts else run.program
    return build_for(run, program, combinations)


def measured(run: Run, artifacts: Sequence[Artifact]) -> tuple[Measurement, ...]:
    """All variants in turns, fresh sessions every trial."""
    return measure(run, artifacts, SAMPLING)
