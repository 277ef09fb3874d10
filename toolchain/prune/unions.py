"""How many channels loose additions put out: the union of what their branches keep, their best ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.prune.tables import Term
from toolchain.values import Channels

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Union:
    """Unit u of a merged group is there while of some source more than `ranks[source][u]` units are kept."""

    size: int
    ranks: Mapping[str, Ints]


@dataclass(frozen=True, kw_only=True)
class Unions:
    """The merged groups of a channel analysis as functions of how many units their sources keep.

    `holders` are the axes of the blocks that a source vanishes with; `sizes` the sources' full sizes.
    """

    merged: Mapping[str, Union]
    holders: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, int]

    def term(self, term: Term) -> Term:
        """The term as one over what is chosen."""
        own = [name for name in term.axes if name in self.merged]
        if not own:
            return term
        axes = [name for name in term.axes if name not in self.merged]
        for name in own:
            for source in self.merged[name].ranks:
                axes += [source, *self.holders.get(source, ())]
        return Term(
            axes=tuple(dict.fromkeys(axes)), values=lambda counts: term.values(self.counts(counts, own))
        )

    def counts(self, counts: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        """`counts` with those of merged groups, all of them or the ones named; those given stay."""
        missing = [n for n in (self.merged if names is None else names) if n not in counts]
        return {**counts, **{name: self._count(self.merged[name], counts) for name in missing}}

    def _count(self, union: Union, counts: Mapping[str, Any]) -> Any:
        kept: dict[str, Any] = {}
        for source in union.ranks:
            kept[source] = counts.get(source, self.sizes[source])
            for block in self.holders.get(source, ()):
                kept[source] = kept[source] * counts.get(block, 1)
        total: Any = 0
        for unit in range(union.size):
            there: Any = False
            for source, ranks in union.ranks.items():
                there = there | (kept[source] > ranks[unit])
            total = total + there
        return total


def unions_of(
    channels: Channels, scores: Mapping[str, Sequence[float]], holders: Mapping[str, tuple[str, ...]]
) -> Unions:
    """The merged groups of `channels` where each group keeps its units of the highest `scores`.

    Args:
        channels: of a program with loose additions.
        scores: by group and unit, as plans choose units by.
        holders: the axes of the blocks that hold each group.
    """
    places: dict[str, list[int]] = {}
    for name, values in scores.items():
        order = sorted(range(len(values)), key=lambda u: (-values[u], u))
        places[name] = [0] * len(values)
        for place, unit in enumerate(order):
            places[name][unit] = place
    never = max((group.size for group in channels.all), default=0)
    merged: dict[str, Union] = {}
    for group in channels.merged:
        names = dict.fromkeys(name for units in group.sources for name, _ in units)
        ranks = {name: np.full(group.size, never) for name in names}
        for unit, units in enumerate(group.sources):
            for name, source in units:
                ranks[name][unit] = min(ranks[name][unit], places[name][source])
        merged[group.name] = Union(size=group.size, ranks=ranks)
    return Unions(merged=merged, holders=holders, sizes={g.name: g.size for g in channels.groups})
