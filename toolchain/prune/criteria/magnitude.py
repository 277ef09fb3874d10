"""Weight magnitude, group-aware: the mean energy of everything that would be cut with a unit.

Per member parameter with two or more dimensions, the squared L2 norm of each unit's slice is divided by the
layer's mean, so that layers of different scale compare; the unit's score is the mean over its members.
Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, extended to coupled layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from toolchain.contracts import Criterion, Evidence
from toolchain.program.slices import parameter, unit_sums
from toolchain.values import Channels, Group, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del evidence
    return {group.name: _energies(program, group) for group in channels.groups}


def _energies(program: Program, group: Group) -> tuple[float, ...]:
    total = torch.zeros(group.size, dtype=torch.float64)
    counted = 0
    for member in group.members:
        weight = parameter(program, member.parameter)
        if weight.dim() < 2:
            continue
        energy = unit_sums(weight.detach().double() ** 2, member)
        mean = energy.mean()
        if mean > 0:
            total += energy / mean
            counted += 1
    return tuple((total / max(counted, 1)).tolist())


CRITERION: Final = Criterion(
    name="magnitude",
    summary="energy of a unit's weights, normalised per layer; needs no data",
    needs_data=False,
    score=_score,
)
