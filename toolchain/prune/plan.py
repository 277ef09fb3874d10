"""The budget solver: how much of everything stays so that every limit holds with the least damage.

Each axis (a channel group's width, a residual block's presence) has levels with the damage of going there;
damages add up. Resources are whatever functions of the chosen levels the caller hands in: milliseconds from
a latency model, MACs, parameters, activation volume. The solver descends greedily by damage per relative
gain, looking ahead over all lower levels of an axis (latency falls in steps, so one unit less may gain
nothing), then gives back what the slack allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toolchain.values import Group

Counts = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that can be reduced: `levels` descending from its full size, `damage[i]` of `levels[i]`."""

    name: str
    levels: tuple[int, ...]
    damage: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One resource with its hard upper limit: `amount(counts)` must stay at or under `limit`."""

    name: str
    limit: float
    amount: Callable[[Counts], float]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Chosen level of every axis, the damage they cost, and whether every limit holds."""

    counts: Mapping[str, int]
    damage: float
    amounts: Mapping[str, float]
    feasible: bool


def levels(group: Group, align: int, floor_ratio: float = 0.1) -> tuple[int, ...]:
    """Admissible kept counts of a group, descending: its full size and the aligned counts below it.

    Groups too small for the alignment step by half of it, down to one unit.
    """
    step = max(1, align)
    while step > 1 and group.size < 2 * step:
        step //= 2
    lowest = max(group.minimum, 1, int(group.size * floor_ratio))
    aligned = range((group.size - 1) // step * step, 0, -step)
    return (group.size, *(count for count in aligned if count >= lowest))


def width_axis(group: Group, scores: Sequence[float], align: int, *, scale: float = 1.0) -> Axis:
    """A group's width: the damage of a level is the sum of its lowest scores, times `scale`."""
    ladder = levels(group, align)
    lost = _removal_damage(scores)
    return Axis(
        name=group.name, levels=ladder, damage=tuple(scale * lost[group.size - count] for count in ladder)
    )


def solve(axes: Sequence[Axis], limits: Sequence[Limit]) -> Solution:
    """The least damaging levels found under all `limits`; deterministic.

    Where the limits cannot be met, the smallest network considered is returned with `feasible` False.
    """
    steps = {axis.name: axis.levels for axis in axes}
    lost = {axis.name: dict(zip(axis.levels, axis.damage, strict=True)) for axis in axes}
    counts = {axis.name: axis.levels[0] for axis in axes}
    amounts = _amounts(limits, counts)
    while _violated(limits, amounts):
        move = _best_removal(counts, steps, lost, limits, amounts)
        if move is None:
            break
        counts[move[0]] = move[1]
        amounts = _amounts(limits, counts)
    feasible = not _violated(limits, amounts)
    if feasible:
        counts = _give_back(counts, steps, lost, limits)
        amounts = _amounts(limits, counts)
    damage = sum(lost[name][count] for name, count in counts.items())
    return Solution(counts=counts, damage=damage, amounts=amounts, feasible=feasible)


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


def _amounts(limits: Sequence[Limit], counts: Counts) -> dict[str, float]:
    return {limit.name: limit.amount(counts) for limit in limits}


def _violated(limits: Sequence[Limit], amounts: Mapping[str, float]) -> bool:
    return any(amounts[limit.name] > limit.limit for limit in limits)


def _excess(limits: Sequence[Limit], amounts: Mapping[str, float]) -> float:
    """How far over the limits, summed over resources, relative to each limit."""
    return sum(max(0.0, amounts[limit.name] / limit.limit - 1.0) for limit in limits)


def _best_removal(
    counts: dict[str, int],
    steps: Mapping[str, tuple[int, ...]],
    lost: Mapping[str, Mapping[int, float]],
    limits: Sequence[Limit],
    amounts: Mapping[str, float],
) -> tuple[str, int] | None:
    """The (axis, lower level) with the least damage per reduction of the excess; None when nothing helps."""
    before = _excess(limits, amounts)
    best: tuple[float, str, int] | None = None
    for name, now in counts.items():
        for lower in (level for level in steps[name] if level < now):
            counts[name] = lower
            gain = before - _excess(limits, _amounts(limits, counts))
            counts[name] = now
            if gain <= 0:
                continue
            price = (lost[name][lower] - lost[name][now]) / gain
            if best is None or (price, name, -lower) < (best[0], best[1], -best[2]):
                best = (price, name, lower)
    return None if best is None else (best[1], best[2])


def _give_back(
    counts: dict[str, int],
    steps: Mapping[str, tuple[int, ...]],
    lost: Mapping[str, Mapping[int, float]],
    limits: Sequence[Limit],
) -> dict[str, int]:
    """Regrow, most valuable first, whatever still fits under all limits."""
    while True:
        best: tuple[float, str, int] | None = None
        for name, now in counts.items():
            for higher in (level for level in steps[name] if level > now):
                worth = lost[name][now] - lost[name][higher]
                if worth < 0 or (best is not None and worth <= best[0]):
                    continue
                trial = {**counts, name: higher}
                if not _violated(limits, _amounts(limits, trial)):
                    best = (worth, name, higher)
        if best is None:
            return counts
        counts = {**counts, best[1]: best[2]}
