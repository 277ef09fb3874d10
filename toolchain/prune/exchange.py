"""Local search on a choice of levels: make it hold the limits, then give back what they leave room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from toolchain.prune.tables import Floats, Problem

SLACK: Final = 1e-12
"""Relative room for rounding when amounts are compared with limits."""
NOISE: Final = 1e-9
"""Gains smaller than this share of the excess are rounding."""
EXCHANGES: Final = 40
RAISES: Final = 3
"""Levels above an axis' own that an exchange tries."""


def holds(amounts: Floats) -> bool:
    """Whether every resource is at or under its limit."""
    return bool((amounts <= 1.0 + SLACK).all())


def repair(problem: Problem, choice: Sequence[int]) -> list[int] | None:
    """Go down, by the least damage for the excess removed, until every limit holds; None: no way down."""
    found = list(choice)
    amounts = problem.amounts(found)
    over = excess(amounts)
    while not holds(amounts):
        best: tuple[float, int, int] | None = None
        for axis in range(len(found)):
            gain = over - excess(problem.along(found, axis, amounts))
            harm = problem.damage[axis] - problem.damage[axis][found[axis]]
            helps = np.flatnonzero(gain > NOISE * over)
            if helps.size:
                price = np.maximum(harm[helps], 0.0) / gain[helps]
                at = int(price.argmin())
                if best is None or price[at] < best[0]:
                    best = (float(price[at]), axis, int(helps[at]))
        if best is None:
            return None
        found[best[1]] = best[2]
        amounts = problem.amounts(found)
        before, over = over, excess(amounts)
        if over >= before:  # what looked like a gain was rounding
            return None
    return found


def excess(amounts: Floats) -> Any:
    """How far over the limits, summed over resources, relative to each limit: one number a column."""
    return np.maximum(amounts - 1.0, 0.0).sum(0)


def improve(problem: Problem, choice: Sequence[int]) -> list[int]:
    """From a choice that holds: give back, and exchange one axis' level for another's while it pays."""
    found = _given_back(problem, choice)
    for _ in range(EXCHANGES):
        better = _exchanged(problem, found)
        if better is None:
            break
        found = _given_back(problem, better)
    return found


def _given_back(problem: Problem, choice: Sequence[int]) -> list[int]:
    """Regrow, most valuable first, whatever still fits under all limits."""
    found = list(choice)
    amounts = problem.amounts(found)
    while True:
        best: tuple[float, int, int] | None = None
        for axis in range(len(found)):
            worth = problem.damage[axis][found[axis]] - problem.damage[axis]
            # A level that costs nothing is given back too, down to the first (full) one.
            better = np.flatnonzero((worth > 0) | ((worth == 0) & (np.arange(len(worth)) < found[axis])))
            if not better.size or (best is not None and worth[better].max() <= best[0]):
                continue
            fits = better[(problem.along(found, axis, amounts)[:, better] <= 1.0 + SLACK).all(0)]
            if fits.size and (best is None or worth[fits].max() > best[0]):
                at = int(fits[worth[fits].argmax()])
                best = (float(worth[at]), axis, at)
        if best is None:
            return found
        found[best[1]] = best[2]
        amounts = problem.amounts(found)


def _exchanged(problem: Problem, choice: Sequence[int]) -> list[int] | None:
    """One axis a little up, another one down, with less damage in all; None when no pair pays."""
    best: tuple[float, list[int]] | None = None
    for axis in range(len(choice)):
        for level in range(max(choice[axis] - RAISES, 0), choice[axis]):
            gained = problem.damage[axis][choice[axis]] - problem.damage[axis][level]
            if gained <= (best[0] if best else 0.0):
                continue
            trial = list(choice)
            trial[axis] = level
            found = _compensated(problem, trial, axis, gained)
            if found is not None and (best is None or found[0] > best[0] + SLACK):
                best = found
    return None if best is None else best[1]


def _compensated(
    problem: Problem, trial: list[int], raised: int, gained: float
) -> tuple[float, list[int]] | None:
    """The other axis that makes the trial hold with the least damage, and what is left of the gain."""
    amounts = problem.amounts(trial)
    best: tuple[float, int, int] | None = None
    for axis in range(len(trial)):
        harm = problem.damage[axis] - problem.damage[axis][trial[axis]]
        candidates = np.flatnonzero((harm >= 0) & (harm < (best[0] if best else gained) - SLACK))
        if axis == raised or not candidates.size:
            continue
        fits = candidates[(problem.along(trial, axis, amounts)[:, candidates] <= 1.0 + SLACK).all(0)]
        if fits.size:
            at = int(fits[harm[fits].argmin()])
            best = (float(harm[at]), axis, at)
    if best is None:
        return None
    trial[best[1]] = best[2]
    return gained - best[0], trial
