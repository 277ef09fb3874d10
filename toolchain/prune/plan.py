"""The budget solver: how much of everything stays so that every limit holds with the least damage.

Each axis (a channel group's width, a residual block's presence) has levels with the damage of going there;
damages add up. Resources (milliseconds from a latency model, MACs, parameters, activation volume) are sums of
terms over a few axes each. Prices on the resources (Lagrange multipliers) turn the limits into a sum of
tables whose minimum is found by eliminating axes; the choices found on the way are made to hold, and improved
by exchanges. The prices give a lower bound of the damage, so every solution states its optimality gap.

Axes with many levels are solved on a selection of them first, then on all of them near that solution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from toolchain.prune.exchange import excess, holds, improve, repair
from toolchain.prune.multipliers import Dual
from toolchain.prune.tables import Axis, Counts, Floats, Limit, Problem, Term, tabulate
from toolchain.values import Group

LEVELS: Final = 24
"""Levels of an axis that are looked at together."""
IMPROVED: Final = 2
"""Choices that local search starts from: so many of the best, and of those just over the limits."""
FLOOR: Final = 0.1
"""Share of its units that a group keeps at least, where nothing else is asked for."""
TURNS: Final = 6
"""Times that terms too wide for a table are linearised anew around the last solution."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Chosen level of every axis, the damage they cost, and whether every limit holds.

    `bound` is a lower bound of the damage of any choice among the levels looked at; None where there is none
    (nothing feasible, or terms over too many axes to tabulate).
    """

    counts: Mapping[str, int]
    damage: float
    amounts: Mapping[str, float]
    feasible: bool
    bound: float | None = None

    @property
    def gap(self) -> float | None:
        """How far the damage may be above the least possible, relative to it; 0 is proven optimal."""
        if self.bound is None or not self.feasible:
            return None
        return max(self.damage - self.bound, 0.0) / self.damage if self.damage > 0 else 0.0


def levels(group: Group, align: int, floor: float = FLOOR) -> tuple[int, ...]:
    """Admissible kept counts of a group, descending: its full size and the aligned counts below it.

    Groups too small for the alignment step by half of it, down to one unit. No level is under the share
    `floor` of the full size.
    """
    step = max(1, align)
    while step > 1 and group.size < 2 * step:
        step //= 2
    lowest = max(group.minimum, 1, int(group.size * floor))
    aligned = range((group.size - 1) // step * step, 0, -step)
    return (group.size, *(count for count in aligned if count >= lowest))


def width_axis(
    group: Group, scores: Sequence[float], align: int, scale: float = 1.0, floor: float = FLOOR
) -> Axis:
    """A group's width: the damage of a level is the sum of its lowest scores, times `scale`."""
    ladder = levels(group, align, floor)
    lost = _removal_damage(scores)
    return Axis(
        name=group.name, levels=ladder, damage=tuple(scale * lost[group.size - count] for count in ladder)
    )


def solve(axes: Sequence[Axis], limits: Sequence[Limit]) -> Solution:
    """The least damaging levels found under all `limits`; deterministic.

    Where the limits cannot be met, the smallest network considered is returned with `feasible` False.
    """
    chosen, bound, problem = _solved(_thinned(axes), limits)
    if any(len(axis.levels) > LEVELS for axis in axes):
        counts = problem.counts(chosen)
        fine = [_near(axis, some, counts[axis.name]) for axis, some in zip(axes, problem.axes, strict=True)]
        seed = tuple(axis.levels.index(counts[axis.name]) for axis in fine)
        chosen, bound, problem = _solved(fine, limits, seed)
    counts = problem.counts(chosen)
    feasible = holds(problem.amounts(chosen))
    return Solution(
        counts=counts,
        damage=problem.damage_of(chosen),
        amounts={limit.name: limit.amount(counts) for limit in limits},
        feasible=feasible,
        bound=bound if feasible else None,
    )


def _solved(
    axes: Sequence[Axis], limits: Sequence[Limit], seed: tuple[int, ...] = ()
) -> tuple[list[int], float | None, Problem]:
    """The best choice found among these levels, and a lower bound where there is one."""
    problem = tabulate(axes, limits)
    whole = [0] * len(axes)
    if holds(problem.amounts(whole)):
        return whole, 0.0, problem
    if not problem.wide:
        return *_priced(problem, seed), problem
    return _approached(problem, list(seed) or whole), None, problem


def _priced(
    problem: Problem, seed: tuple[int, ...] = (), *, roughly: bool = False
) -> tuple[list[int], float | None]:
    """The best choice of a problem in tables and a lower bound; None with the smallest where none holds.

    `roughly`: as the prices give it, without local search.
    """
    unit = max((float(d.max()) for d in problem.damage), default=0.0) or 1.0
    dual = Dual(problem=problem)
    start = dual.cheapest()
    candidates: dict[tuple[int, ...], None] = {seed: None} if seed else {}
    candidates[tuple(start)] = None
    if holds(problem.amounts(start)) or len(problem.limits) > 1:
        candidates |= {tuple(choice): None for choice in dual.choices(unit * 1e-3)}
    if roughly:
        held = [c for c in candidates if holds(problem.amounts(c))]
        return list(min(held, key=problem.damage_of, default=start)), dual.bound
    best = _best_of(problem, list(candidates))
    return (_smallest(problem, start), None) if best is None else (best, dual.bound)


def _approached(problem: Problem, choice: list[int]) -> list[int]:
    """With terms too wide for tables: solve linearised around the last solution, a few times."""
    stretch = np.ones(len(problem.limits))
    held: list[list[int]] = [choice] if holds(problem.amounts(choice)) else []
    for turn in range(1, TURNS + 1):
        linear = problem.linearised(choice, stretch)
        choice, _ = _priced(linear, roughly=turn < TURNS)
        exact, believed = problem.amounts(choice), linear.amounts(choice)
        if holds(exact):
            held.append(choice)
        # What the linear terms overlooked is allowed for the next time.
        stretch = stretch * np.clip(exact / np.maximum(believed, 1e-9), 0.5, 2.0)
    repaired = repair(problem, choice)
    if repaired is not None:
        held.append(repaired)
    return min(held, key=problem.damage_of) if held else _smallest(problem, choice)


def _best_of(problem: Problem, candidates: Sequence[Sequence[int]]) -> list[int] | None:
    """The least damaging of the candidates that hold or are made to hold, after local search."""
    amounts = [problem.amounts(c) for c in candidates]
    held = [c for c, a in zip(candidates, amounts, strict=True) if holds(a)]
    over = [
        i for i in np.argsort([excess(a) for a in amounts], kind="stable").tolist() if not holds(amounts[i])
    ]
    repaired = [repair(problem, candidates[i]) for i in over[:IMPROVED]]
    found = sorted([*held, *(r for r in repaired if r is not None)], key=problem.damage_of)
    return min((improve(problem, c) for c in found[:IMPROVED]), key=problem.damage_of, default=None)


def _smallest(problem: Problem, start: Sequence[int]) -> list[int]:
    """From the cheapest choice down, each axis to the level that is over the limits by the least."""
    found = list(start)
    for _ in range(TURNS):
        before = list(found)
        for axis in range(len(found)):
            over = excess(problem.along(found, axis, problem.amounts(found)))
            if over.min() < over[found[axis]]:
                found[axis] = int(over.argmin())
        if found == before:
            break
    return found


def _thinned(axes: Sequence[Axis]) -> list[Axis]:
    """At most `LEVELS` levels of each axis, evenly spread, the first and the last among them."""
    return [_levels_of(a, np.linspace(0, len(a.levels) - 1, min(len(a.levels), LEVELS))) for a in axes]


def _near(axis: Axis, coarse: Axis, count: int) -> Axis:
    """All levels between the coarse neighbours of `count`, thinned again where they are too many."""
    at = coarse.levels.index(count)
    first = axis.levels.index(coarse.levels[max(at - 1, 0)])
    last = axis.levels.index(coarse.levels[min(at + 1, len(coarse.levels) - 1)])
    own = axis.levels.index(count)
    spread = np.linspace(first, last, min(last - first + 1, LEVELS))
    return _levels_of(axis, np.concatenate([[0, own], spread]))


def _levels_of(axis: Axis, places: Floats) -> Axis:
    rows = sorted({round(float(place)) for place in places})
    return Axis(
        name=axis.name,
        levels=tuple(axis.levels[i] for i in rows),
        damage=tuple(axis.damage[i] for i in rows),
    )


def kept_units(scores: Mapping[str, Sequence[float]], counts: Counts) -> dict[str, tuple[int, ...]]:
    """The highest-scored units of each group that is cut, in ascending order; ties keep the lower number.

    Axes of `counts` that are not groups of `scores` are passed over.
    """
    kept: dict[str, tuple[int, ...]] = {}
    for name, values in scores.items():
        count = counts.get(name, len(values))
        if count < len(values):
            best = sorted(range(len(values)), key=lambda u: (-values[u], u))[:count]
            kept[name] = tuple(sorted(best))
    return kept


def _removal_damage(scores: Sequence[float]) -> tuple[float, ...]:
    """Damage of removing the r lowest-scored units, for r = 0 .. size."""
    total, sums = 0.0, [0.0]
    for value in sorted(scores):
        total += value
        sums.append(total)
    return tuple(sums)


__all__ = [
    "FLOOR",
    "Axis",
    "Counts",
    "Limit",
    "Solution",
    "Term",
    "kept_units",
    "levels",
    "solve",
    "width_axis",
]
