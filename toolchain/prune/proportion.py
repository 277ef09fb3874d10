"""Widths in a given proportion, as wide as the limits allow: what a uniform width multiplier does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from toolchain.prune.plan import Solution
from toolchain.prune.tables import Axis, Limit

HALVINGS: Final = 40


def scaled(axes: Sequence[Axis], limits: Sequence[Limit], widths: Mapping[str, int]) -> Solution:
    """The largest multiple of `widths` under all limits; axes that `widths` does not name stay whole.

    A group has the level next to its share, the narrower of two as near. Where the limits cannot be met the
    narrowest network is returned, with `feasible` False.
    """

    def counts(factor: float) -> dict[str, int]:
        return {
            axis.name: min(reversed(axis.levels), key=lambda n: abs(n - factor * widths[axis.name]))
            if axis.name in widths
            else axis.levels[0]
            for axis in axes
        }

    def holds(factor: float) -> bool:
        found = counts(factor)
        return all(limit.amount(found) <= limit.limit for limit in limits)

    low, high = (
        0.0,
        max((a.levels[0] / max(widths[a.name], 1) for a in axes if a.name in widths), default=1.0),
    )
    if holds(high):
        low = high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    found = counts(low)
    return Solution(
        counts=found,
        damage=sum(axis.damage[axis.levels.index(found[axis.name])] for axis in axes),
        amounts={limit.name: limit.amount(found) for limit in limits},
        feasible=holds(low),
    )
