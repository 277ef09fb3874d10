"""Budgeted resources as differentiable functions of expected widths.

A resource is a sum of terms over the counts of a few axes. Its slope along an axis is that of a secant over a
few units to both sides. Counted resources are polynomials, and the secant over one unit is the derivative of
anything up to a square; latency rises in steps as wide as the kernels' blocks, over which the secant looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from toolchain.prune.tables import Limit, Term

REACH: Final = {"ms": 8}
"""Units to each side over which a resource's slope is taken; 1 where nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Resources as functions of how many units axes keep, relative to their limits: 1 is a full budget.

    `sizes` are the full sizes of the groups; an axis that is not among them is a block, there or not.
    """

    limits: tuple[Limit, ...]
    sizes: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """What the limits are called."""
        return tuple(limit.name for limit in self.limits)

    def exact(self, counts: Mapping[str, int]) -> tuple[float, ...]:
        """Each resource of the network that keeps `counts`; axes not named are whole."""
        return tuple(limit.amount(counts) / limit.limit for limit in self.limits)

    def near(self, expected: Mapping[str, float]) -> tuple[float, ...]:
        """Each resource at expected counts, those of groups rounded."""
        found = {name: self._near(name, count) for name, count in expected.items()}
        parts = (sum(float(t.values(_own(t, found))) for t in limit.terms) for limit in self.limits)
        return tuple(part / limit.limit for part, limit in zip(parts, self.limits, strict=True))

    def slopes(self, expected: Mapping[str, float]) -> tuple[dict[str, float], ...]:
        """For each resource: by how much it grows with every unit of an axis, near these expected counts."""
        near = {name: self._near(name, count) for name, count in expected.items()}
        found = []
        for limit in self.limits:
            slopes = dict.fromkeys(near, 0.0)
            for term in limit.terms:
                for axis in set(term.axes) & set(near):
                    slopes[axis] += self._slope(term, axis, near, REACH.get(limit.name, 1)) / limit.limit
            found.append(slopes)
        return tuple(found)

    def _near(self, name: str, count: float) -> float:
        """A count that can be looked up; terms are linear in a block, which stays as likely as it is."""
        return float(min(max(round(count), 1), self.sizes[name])) if name in self.sizes else count

    def _slope(self, term: Term, axis: str, near: Mapping[str, float], reach: int) -> float:
        low, high = 0.0, 1.0
        if axis in self.sizes:
            low, high = max(near[axis] - reach, 1.0), min(near[axis] + reach, float(self.sizes[axis]))
        if high <= low:
            return 0.0
        values = np.broadcast_to(
            np.asarray(term.values({**_own(term, near), axis: np.array([low, high])}), float), (2,)
        )
        return float(values[1] - values[0]) / (high - low)


def _own(term: Term, counts: Mapping[str, float]) -> dict[str, float]:
    return {name: counts[name] for name in term.axes if name in counts}
