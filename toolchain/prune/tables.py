"""The budget problem as tables: every resource a sum of terms, each over the levels of a few axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Counts = Mapping[str, int]
Floats = NDArray[np.float64]
CELLS: Final = 1 << 17
"""A term with more combinations of levels than this is not tabulated ("wide")."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that can be reduced: `levels` descending from its full size, `damage[i]` of `levels[i]`."""

    name: str
    levels: tuple[int, ...]
    damage: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Term:
    """A part of a resource: `values(counts)` of its own axes' counts, numbers or arrays that broadcast."""

    axes: tuple[str, ...]
    values: Callable[[Mapping[str, Any]], Any]

    def scaled(self, factor: float) -> Term:
        """The term times a number."""
        return Term(axes=self.axes, values=lambda counts: factor * self.values(counts))


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One resource with its hard upper limit: the sum of its terms must stay at or under `limit`."""

    name: str
    limit: float
    terms: tuple[Term, ...]

    def amount(self, counts: Counts) -> float:
        """The resource at these counts."""
        return float(sum(float(term.values(counts)) for term in self.terms))


@dataclass(frozen=True, kw_only=True)
class Wide:
    """A term over too many axes to tabulate: `limit` it belongs to, its axes by number."""

    limit: int
    axes: tuple[int, ...]
    term: Term


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Axes by number, each with a choice of levels; resources relative to their limits, so that 1 is full.

    `tables[axes]` holds one table a limit: [limits, *levels of the axes], axes in ascending order.
    """

    axes: tuple[Axis, ...]
    limits: tuple[Limit, ...]
    constant: Floats
    tables: Mapping[tuple[int, ...], Floats]
    wide: tuple[Wide, ...]
    touching: tuple[tuple[tuple[int, ...], ...], ...]
    damage: tuple[Floats, ...]

    def counts(self, choice: Sequence[int]) -> dict[str, int]:
        """Kept counts by axis name."""
        return {axis.name: axis.levels[i] for axis, i in zip(self.axes, choice, strict=True)}

    def damage_of(self, choice: Sequence[int]) -> float:
        """The damages of all axes' levels, added up."""
        return float(sum(axis.damage[i] for axis, i in zip(self.axes, choice, strict=True)))

    def amounts(self, choice: Sequence[int]) -> Floats:
        """Every resource relative to its limit: [limits]."""
        total = self.constant.copy()
        for axes, table in self.tables.items():
            at: list[Any] = [slice(None), *(choice[a] for a in axes)]
            total += table[tuple(at)]
        for wide in self.wide:
            total[wide.limit] += self.wide_value(wide, choice)
        return total

    def wide_value(self, wide: Wide, choice: Sequence[int], along: int | None = None) -> Any:
        """A wide term's value, or its values over all levels of axis `along`."""
        counts: dict[str, Any] = {self.axes[a].name: self.axes[a].levels[choice[a]] for a in wide.axes}
        if along is not None:
            counts[self.axes[along].name] = np.array(self.axes[along].levels)
        return np.asarray(wide.term.values(counts), float) / self.limits[wide.limit].limit

    def along(self, choice: Sequence[int], axis: int, amounts: Floats) -> Floats:
        """Resources over all levels of one axis, the others as chosen: [limits, levels]."""
        change = np.zeros((len(self.limits), len(self.axes[axis].levels)))
        for axes in self.touching[axis]:
            at: list[Any] = [slice(None), *(slice(None) if a == axis else choice[a] for a in axes)]
            change += self.tables[axes][tuple(at)]
        for wide in self.wide:
            if axis in wide.axes:
                change[wide.limit] += self.wide_value(wide, choice, axis)
        return amounts[:, None] + change - change[:, choice[axis], None]

    def linearised(self, choice: Sequence[int], stretch: Floats) -> Problem:
        """Without wide terms: each is its value at `choice` plus what each of its axes alone would change.

        All resources are multiplied by `stretch` [limits].
        """
        constant = self.constant.copy()
        tables = {axes: table.copy() for axes, table in self.tables.items()}
        for wide in self.wide:
            here = float(self.wide_value(wide, choice))
            constant[wide.limit] += here
            for axis in wide.axes:
                shape = (len(self.limits), len(self.axes[axis].levels))
                line = tables.setdefault((axis,), np.zeros(shape))
                line[wide.limit] += self.wide_value(wide, choice, axis) - here
        for axes, table in tables.items():
            tables[axes] = table * stretch.reshape(-1, *[1] * len(axes))
        return _problem(self.axes, self.limits, constant * stretch, tables, ())


def tabulate(axes: Sequence[Axis], limits: Sequence[Limit]) -> Problem:
    """Tables of all terms over the axes' levels."""
    number = {axis.name: i for i, axis in enumerate(axes)}
    constant = np.zeros(len(limits))
    tables: dict[tuple[int, ...], Floats] = {}
    wide: list[Wide] = []
    for k, limit in enumerate(limits):
        for term in limit.terms:
            own = tuple(sorted({number[name] for name in term.axes if name in number}))
            sizes = [len(axes[a].levels) for a in own]
            if not own:
                constant[k] += float(term.values({})) / limit.limit
            elif np.prod(sizes, dtype=float) > CELLS:
                wide.append(Wide(limit=k, axes=own, term=term))
            else:
                grid = np.ix_(*(np.array(axes[a].levels) for a in own))
                values = term.values({axes[a].name: g for a, g in zip(own, grid, strict=True)})
                table = tables.setdefault(own, np.zeros((len(limits), *sizes)))
                table[k] += np.broadcast_to(np.asarray(values, float), sizes) / limit.limit
    return _problem(axes, limits, constant, tables, wide)


def _problem(
    axes: Sequence[Axis],
    limits: Sequence[Limit],
    constant: Floats,
    tables: Mapping[tuple[int, ...], Floats],
    wide: Sequence[Wide],
) -> Problem:
    return Problem(
        axes=tuple(axes),
        limits=tuple(limits),
        constant=constant,
        tables=tables,
        wide=tuple(wide),
        touching=tuple(tuple(t for t in tables if a in t) for a in range(len(axes))),
        damage=tuple(np.array(axis.damage, float) for axis in axes),
    )
