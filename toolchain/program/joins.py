"""Loose additions: when their branches may keep different channels, and what is then left of their results.

Given:  y = add(u, v), the channels of u and v chosen apart
Result: channel i of y is there while that of u or that of v is, and is the sum of what is there
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np

from toolchain.program.labels import FIXED, Ints
from toolchain.program.rules.vanishing import vanishes
from toolchain.program.tracing import Join, Tracing

Units = tuple[tuple[int, int], ...]
"""(group, unit) pairs, groups by number."""


def sound(t: Tracing) -> frozenset[str]:
    """The loose additions of a settled tracing that may stay loose; the others have to tie their operands.

    Every position is a channel that may be removed, what is removed of the operands is zero (a sigmoid would
    make 0.5 of it), and nothing else has a say in which channels the addition puts out.
    """
    times = Counter(join.node.name for join in t.joins)
    results = [_column(t, join.result) for join in t.joins]
    owners = Counter(chain.from_iterable(set(r.tolist()) for r in results if r is not None))
    found: set[str] = set()
    for number, (join, result) in enumerate(zip(t.joins, results, strict=True)):
        operands = [_column(t, vector) for vector in join.operands]
        if times[join.node.name] > 1 or result is None or any(o is None for o in operands):
            continue
        one, other = (o for o in operands if o is not None)
        made = set(chain.from_iterable(r.tolist() for r in results[number:] if r is not None))
        apart = all(len(np.unique(c)) == len(c) for c in (one, other, result)) and not (one == other).any()
        decided = all(owners[atom] == 1 for atom in result.tolist())
        if apart and decided and made.isdisjoint([*one.tolist(), *other.tolist()]) and _vanish(t, join):
            found.add(join.node.name)
    return frozenset(found)


def joined(t: Tracing) -> Iterator[tuple[Ints, Ints, Ints]]:
    """The atoms of both operands and of the result of every loose addition, in graph order."""
    for join in t.joins:
        one, other = (t.labels.roots(vector) for vector in join.operands)
        yield one, other, t.labels.roots(join.result)


def absent(t: Tracing, group_of: Ints) -> Ints:
    """Atoms of operands that no parameter has and no addition puts out: pads, zeros that need no place."""
    made = [result for _, _, result in joined(t)]
    read = [side for one, other, _ in joined(t) for side in (one, other)]
    if not read:
        return np.zeros(0, np.int64)
    atoms = np.setdiff1d(np.concatenate(read), np.concatenate(made))
    return atoms[group_of[atoms] < 0]


def sources(t: Tracing, group_of: Ints, unit_of: Ints) -> Mapping[int, Units]:
    """For every atom that loose additions put out: the units it stays with, of groups that are chosen."""
    found: dict[int, Units] = {}

    def of(atom: int) -> Units:
        if atom in found:
            return found[atom]
        group = int(group_of[atom])
        return ((group, int(unit_of[atom])),) if group >= 0 else ()

    for one, other, result in joined(t):
        for first, second, atom in zip(one.tolist(), other.tolist(), result.tolist(), strict=True):
            found[atom] = tuple(dict.fromkeys((*of(first), *of(second))))
    return found


def _column(t: Tracing, vector: Ints) -> Ints | None:
    """The atoms of a vector whose positions depend on one atom each, none of them fixed; else None."""
    columns = t.labels.atoms(vector)
    return columns[0] if len(columns) == 1 and bool((columns[0] != FIXED).all()) else None


def _vanish(t: Tracing, join: Join) -> bool:
    return all(vanishes(t, operand, join.dim) for operand in join.node.all_input_nodes)
