"""Optimal brain damage with the empirical Fisher as the diagonal of the Hessian.

The saliency of a weight is h w^2 / 2 with h = E[(dL/dw)^2]; a unit's score is the sum over all its weights.
Unlike `taylor`, the weights of a unit are taken to fail independently.
Source: LeCun et al., "Optimal Brain Damage", NeurIPS 1989, eq. 5; the Fisher in place of the Hessian as in
Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from toolchain.contracts import Criterion, Evidence
from toolchain.program.slices import unit_sums
from toolchain.prune.gradients import backward_passes
from toolchain.prune.listening import needed
from toolchain.values import Channels, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    wanted = {m.parameter for group in channels.groups for m in group.members}
    fisher: dict[str, torch.Tensor] = {}
    weights: dict[str, torch.Tensor] = {}
    steps = 0
    for named in backward_passes(program, needed(evidence, "obd"), wanted):
        steps += 1
        for name, weight in named.items():
            weights[name] = weight.detach()
            square = weight.grad.double().square() if weight.grad is not None else None
            if square is not None:
                fisher[name] = fisher[name].add_(square) if name in fisher else square
    damage = {n: weights[n].double().square() * h / (2 * max(steps, 1)) for n, h in fisher.items()}
    scores: dict[str, tuple[float, ...]] = {}
    for group in channels.groups:
        total = torch.zeros(group.size, dtype=torch.float64)
        for member in group.members:
            if member.parameter in damage:
                total += unit_sums(damage[member.parameter], member)
        scores[group.name] = tuple(total.tolist())
    return scores


CRITERION: Final = Criterion(
    name="obd",
    summary="weight energy times its Fisher information (Hessian diagonal); needs data",
    needs_data=True,
    score=_score,
)
