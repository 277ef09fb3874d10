"""First-order Taylor (empirical Fisher): the expected squared change of the loss when a unit is gated off.

A gate z on a unit, placed where its consumers read it, has `dL/dz = sum(W * dL/dW)` over the consumers'
weights that read the unit, exactly, because a convolution or matrix product is linear in each input channel.
The score is the mean over small batches of `(dL/dz)^2`. Where no weight reads a unit along its input
dimension (attention products, outputs), the producers' parameters stand in. The network runs in eval mode:
statistics are fixed, nothing is updated.
Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, eq. 8.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import torch
from torch import Tensor

from toolchain.contracts import Criterion, Evidence
from toolchain.program.slices import unit_sums
from toolchain.prune.gradients import backward_passes
from toolchain.prune.listening import needed
from toolchain.values import Channels, Group, Member, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    named = dict(program.module.named_parameters())
    added = {name for g in channels.merged for units in g.sources for name, _ in units}
    readers = {group.name: _readers(group, named, added) for group in channels.groups}
    wanted = {m.parameter for members in readers.values() for m in members}
    totals = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in channels.groups}
    steps = 0
    for weights in backward_passes(program, needed(evidence, "taylor"), wanted):
        products = {n: w.detach() * w.grad for n, w in weights.items() if w.grad is not None}
        for name, members in readers.items():
            gates = [unit_sums(products[m.parameter], m) for m in members if m.parameter in products]
            if gates:
                totals[name] += torch.stack(gates).sum(0).double() ** 2
        steps += 1
    return {name: tuple((total / max(steps, 1)).tolist()) for name, total in totals.items()}


def _readers(group: Group, named: Mapping[str, Tensor], added: Collection[str]) -> tuple[Member, ...]:
    """The members through which the group's units are read; failing those, the ones that produce them.

    What is `added` to other channels is read as part of the sum too.
    """
    own = [m for m in group.members if m.parameter in named]
    reading = tuple(m for m in own if m.dim == 1 and named[m.parameter].dim() >= 2)
    if group.name in added:
        return tuple(m for m in own if m not in reading)
    return reading or tuple(own)


CRITERION: Final = Criterion(
    name="taylor",
    summary="expected squared change of the loss, from gradients on training samples; needs data",
    needs_data=True,
    score=_score,
)
