"""Widths as functions of kept counts: sums of products of counts, prepared for many evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from toolchain.program.labels import Ints, Labels, Vector

Terms = tuple[tuple[int, tuple[int, ...]], ...]
"""`((coefficient, groups), ...)`: the sum over terms of coefficient times the counts of its groups."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """The size of any parameter dimension when group g keeps `counts[g]` units; an absent group is whole."""

    tables: Mapping[tuple[str, int], Terms]
    aliases: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def of(self, parameter: str, dim: int, counts: Mapping[str, Any]) -> Any:
        """The number of positions left along `dim`, for counts that are numbers or arrays that broadcast.

        Raises:
            KeyError: a parameter that the graph does not use.
        """
        total: Any = 0
        for coefficient, groups in self.tables[self.aliases[parameter], dim]:
            width: Any = coefficient
            for group in groups:
                width = width * counts.get(self.names[group], self.sizes[group])
            total = total + width
        return total


def term_table(labels: Labels, vector: Vector, size: int, group_of: Ints) -> Terms:
    """The width of a dimension as terms.

    Exact because of how units are pooled: the positions that depend on one unit each of groups g, h, ... are
    equally many for every choice of units.
    """
    if vector is None:
        return ((size, ()),)
    columns = labels.atoms(vector)
    groups = np.sort(np.stack([group_of[c] for c in columns]), axis=0)
    kinds, times = np.unique(groups, axis=1, return_counts=True)
    terms: list[tuple[int, tuple[int, ...]]] = []
    for kind, count in zip(kinds.T.tolist(), times.tolist(), strict=True):
        own = tuple(g for g in kind if g >= 0)
        rows = np.flatnonzero((groups == np.array(kind)[:, None]).all(0))
        units = prod(len(np.unique(_atoms_of(columns, group_of, g, rows))) for g in own)
        assert count % units == 0
        terms.append((count // units, own))
    return tuple(terms)


def _atoms_of(columns: list[Ints], group_of: Ints, group: int, rows: Ints) -> Ints:
    return np.concatenate([c[rows][group_of[c[rows]] == group] for c in columns])
