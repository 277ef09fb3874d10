"""What removing things costs, in nats: measured once per channel group and residual block.

A criterion ranks the units within a group well but compares groups badly. Each group is therefore cut at
one middle width, batch-norm statistics are re-estimated, and the divergence of its outputs from the
original's is measured; the criterion's curve is scaled to pass through that point. A block is dropped and
measured the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from toolchain import registry
from toolchain.contracts import Criterion, Evidence
from toolchain.program.blocks import drop
from toolchain.program.rewrite import apply
from toolchain.prune.plan import Axis, kept_units, levels, width_axis
from toolchain.resources import BLOCK, Shape
from toolchain.run import Run
from toolchain.train.distil import distillation_loss
from toolchain.train.metric import program_runner
from toolchain.train.reestimate import reestimate_statistics
from toolchain.values import Group, Program, Request

if TYPE_CHECKING:
    from toolchain.contracts import Batch

SCORED: Final = 512
"""Training samples that a criterion sees."""
JUDGED: Final = 256
"""Training samples on which the loss of a cut is measured."""
LEAST: Final = 1e-4
"""Damage in nats below which a cut cannot be told from none."""


@dataclass(frozen=True, kw_only=True)
class Damages:
    """Unit scores by group; `scale` turns them into nats, `blocks` is in nats (empty: unknown)."""

    criterion: str
    scores: Mapping[str, tuple[float, ...]]
    scale: Mapping[str, float]
    blocks: Mapping[str, float]


def criterion_named(request: Request) -> Criterion:
    """The criterion asked for; `auto` is taylor with data and magnitude without.

    Raises:
        InputError: no such criterion.
    """
    name = request.criterion
    if name == "auto":
        name = "magnitude" if request.data is None else "taylor"
    found: Criterion = registry.find("toolchain.prune.criteria", "CRITERION", name, kind="criterion")
    return found


def measure_damages(run: Run, shape: Shape) -> Damages:
    """Scores by the request's criterion, scaled by measured divergences where there are data."""
    criterion = criterion_named(run.request)
    name = criterion.name
    batch = None if run.data is None else run.data.calibration(SCORED)
    with run.stage(f"Scores of the channels ({name})", "plan"):
        evidence = Evidence(batches=() if batch is None else (batch,), seed=run.request.seed)
        scores = criterion.score(run.program, run.channels, evidence)
    if batch is None:
        return Damages(criterion=name, scores=scores, scale={}, blocks={})
    with run.stage("Damage of removing each group and block", "plan"):
        judged = _spread(batch, JUDGED)
        whole = outputs_of(run.program, judged)
        total, done = len(run.channels.groups) + len(shape.blocks), 0
        scale, gone = {}, {}
        for group in run.channels.groups:
            scale[group.name] = _scale(run, group, scores, judged, whole)
            run.progress.step(done := done + 1, total, group.name)
        for block in shape.blocks:
            gone[block.name] = divergence(drop(run.program, [block.name]), judged, whole)
            run.progress.step(done := done + 1, total, block.name)
    return Damages(criterion=name, scores=scores, scale=scale, blocks=gone)


def axes_of(run: Run, damages: Damages, align: int) -> tuple[Axis, ...]:
    """The solver's axes: every group's width, and every block whose damage is known."""
    found = [
        width_axis(group, damages.scores[group.name], align, scale=damages.scale.get(group.name, 1.0))
        for group in run.channels.groups
    ]
    found += [Axis(name=BLOCK + n, levels=(1, 0), damage=(0.0, nats)) for n, nats in damages.blocks.items()]
    return tuple(found)


def outputs_of(program: Program, batch: Batch) -> tuple[Tensor, ...]:
    """The program's outputs on the inputs of a batch."""
    with torch.no_grad():
        return program_runner(program)(batch[0])


def divergence(program: Program, batch: Batch, original: tuple[Tensor, ...]) -> float:
    """How far the program's outputs are from the original's after batch norm has adapted to the cut.

    For classifiers the Kullback-Leibler divergence in nats, else the mean squared error.
    """
    adapted = reestimate_statistics(program, (batch,))
    found = outputs_of(adapted, batch)
    return max(float(distillation_loss(found, original, batch[1], temperature=1.0, weight=1.0)), LEAST)


def _scale(
    run: Run,
    group: Group,
    scores: Mapping[str, Sequence[float]],
    batch: Batch,
    whole: tuple[Tensor, ...],
) -> float:
    """Nats per unit of the criterion's score, from one cut to about half."""
    ladder = levels(group, 1)
    middle = min(ladder, key=lambda count: abs(count - group.size / 2))
    if middle == group.size:
        return 1.0
    keep = kept_units({group.name: scores[group.name]}, {group.name: middle})
    nats = divergence(apply(run.program, run.channels, keep), batch, whole)
    lost = sum(sorted(scores[group.name])[: group.size - middle])
    return nats / lost if lost > 0 else 1.0


def _spread(batch: Batch, count: int) -> Batch:
    """`count` samples at equal distances from a batch."""
    inputs, target = batch
    step = max(1, len(target) // count)
    return tuple(x[::step][:count] for x in inputs), target[::step][:count]
