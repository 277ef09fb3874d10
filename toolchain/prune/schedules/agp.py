"""Automated gradual pruning: much at first, where most is redundant, then less and less.

    s(t) = 1 - (1 - t / END)^3  for t < END, else 1

Source: Zhu & Gupta, "To prune, or not to prune", 2017, eq. 1, with initial sparsity 0 from the first step on;
they too end well before the training does.
"""

from __future__ import annotations

from typing import Final

from toolchain.contracts import Schedule

END: Final = 0.75


def _removed(t: float) -> float:
    return 1.0 - max(0.0, 1.0 - t / END) ** 3


SCHEDULE: Final = Schedule(
    name="agp", summary="cubic: much at first, then less, done by 0.75 of the training", removed=_removed
)
