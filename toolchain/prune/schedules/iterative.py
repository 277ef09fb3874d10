"""Iterative: remove a few per cent, fine-tune, repeat; the last quarter of the training is left to recover.

Equal parts at equal distances: with three quarters of all channels to go, a round removes a twentieth.
Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017.
"""

from __future__ import annotations

import math
from typing import Final

from toolchain.contracts import Schedule

ROUNDS: Final = 15
EVERY: Final = 0.05
"""Share of the training between two rounds; the first round comes before the first step."""


def _removed(t: float) -> float:
    # The allowance is for times such as 0.15, which lie just under three times 0.05 in binary.
    return min(1.0, (math.floor(t / EVERY + 1e-9) + 1) / ROUNDS)


SCHEDULE: Final = Schedule(
    name="iterative", summary="equal parts at equal distances, done by 0.7 of the training", removed=_removed
)
