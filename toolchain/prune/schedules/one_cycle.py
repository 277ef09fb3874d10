"""One-Cycle Pruning: slowly, then fast, then slowly, from the first step of one training to the last.

    s(t) = (1 + exp(BETA - ALPHA)) / (1 + exp(BETA - ALPHA t))

It goes with the learning rate of the one-cycle policy: up for a quarter of the training, then down to zero.
Sources: Hubens et al., "One-Cycle Pruning: Pruning ConvNets under a Tight Training Budget", ICIP 2022 (alpha
14, beta 5); Smith & Topin, "Super-Convergence", 2018, with cosines for lines.
"""

from __future__ import annotations

import math
from typing import Final

from toolchain.contracts import Schedule

ALPHA, BETA = 14.0, 5.0
RISE: Final = 0.25
"""Share of the training in which the learning rate rises."""
FIRST: Final = 1 / 25
"""The learning rate of the first step, as a share of its peak."""


def _removed(t: float) -> float:
    return (1.0 + math.exp(BETA - ALPHA)) / (1.0 + math.exp(BETA - ALPHA * t))


def _rate(t: float) -> float:
    if t < RISE:
        return FIRST + (1.0 - FIRST) * 0.5 * (1.0 - math.cos(math.pi * t / RISE))
    return 0.5 * (1.0 + math.cos(math.pi * (t - RISE) / (1.0 - RISE)))


SCHEDULE: Final = Schedule(
    name="one-cycle",
    summary="an S from the first step to the last, with the one-cycle learning rate",
    removed=_removed,
    rate=_rate,
)
