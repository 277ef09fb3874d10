"""Weight magnitude, group-aware: the mean energy of everything that would be cut with a unit.

Per member parameter with two or more dimensions, the squared L2 norm of each unit's slice is divided by the
layer's mean, so that layers of different scale compare; the unit's score is the mean over its members.
Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, extended to coupled layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from toolchain.contracts import Criterion, Evidence
from toolchain.program.slices import energies
from toolchain.values import Channels, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del evidence
    return {group.name: energies(program, group) for group in channels.groups}


CRITERION: Final = Criterion(
    name="magnitude",
    summary="energy of a unit's weights, normalised per layer; needs no data",
    needs_data=False,
    score=_score,
)
