"""A seeded uniform score: the baseline every criterion has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from toolchain.contracts import Criterion, Evidence
from toolchain.values import Channels, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del program
    generator = np.random.default_rng(evidence.seed)
    return {group.name: tuple(generator.random(group.size).tolist()) for group in channels.groups}


CRITERION: Final = Criterion(
    name="random",
    summary="uniform random scores under the run's seed; the baseline to beat",
    needs_data=False,
    score=_score,
)
