"""Geometric median: filters near the middle of their layer can be replaced by the others.

The score of a unit is the sum of Euclidean distances from its filters to those of all other units of the
group, per producing layer divided by the layer's mean, averaged over the layers that produce the group.
Source: He et al., "Filter Pruning via Geometric Median", CVPR 2019, eq. 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from toolchain.contracts import Criterion, Evidence
from toolchain.program.slices import energies, parameter
from toolchain.values import Channels, Group, Member, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del evidence
    return {group.name: _distances(program, group) for group in channels.groups}


def _distances(program: Program, group: Group) -> tuple[float, ...]:
    total = torch.zeros(group.size, dtype=torch.float64)
    counted = 0
    for member in group.members:
        weight = parameter(program, member.parameter).detach()
        if weight.dim() < 2 or member.dim != 0:
            continue
        filters = _filters(weight, member)
        if filters is None:
            continue
        far = torch.cdist(filters, filters).sum(1)
        if float(far.mean()) > 0:
            total += far / far.mean()
            counted += 1
    return tuple((total / counted).tolist()) if counted else energies(program, group)


def _filters(weight: Tensor, member: Member) -> Tensor | None:
    """One row a unit: all its filters [units, elements]; None where units have unequal numbers of them."""
    counts = {len(at) for at in member.index}
    if len(counts) > 1 or 0 in counts:
        return None
    rows = torch.tensor(list(member.index), dtype=torch.long)
    return weight[rows.flatten()].double().reshape(len(rows), -1)


CRITERION: Final = Criterion(
    name="geometric-median",
    summary="distance of a unit's filters from all others of its layers; needs no data",
    needs_data=False,
    score=_score,
)
