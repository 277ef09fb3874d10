"""The minimum of a sum of tables over shared axes, by eliminating one axis after the other.

Exact while no joint table grows over `CELLS` (chains of layers and residual stages: two or three axes at
once). Beyond, an axis' tables are split into smaller bundles that are minimised apart ("mini-buckets"): the
result is then a lower bound of the minimum, and the choice is read off approximately.
Source: Dechter & Rish, "Mini-buckets: a general scheme for bounded inference", JACM 2003.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np

from toolchain.prune.tables import Floats

CELLS: Final = 1 << 18
Scope = tuple[int, ...]
Factor = tuple[Scope, Floats]


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order in which axes are eliminated, found once for the shape of a problem."""

    sizes: tuple[int, ...]
    axes: tuple[int, ...]

    @classmethod
    def of(cls, sizes: Sequence[int], scopes: Sequence[Scope]) -> Order:
        """Always next the axis whose joint table is smallest."""
        left = set(range(len(sizes)))
        open_ = [frozenset(scope) for scope in scopes]
        order: list[int] = []
        while left:
            joint = {a: frozenset().union(*(s for s in open_ if a in s)) | {a} for a in left}
            axis = min(left, key=lambda a: (sum(np.log2(sizes[v]) for v in joint[a]), a))
            open_ = [s for s in open_ if axis not in s] + [joint[axis] - {axis}]
            left.remove(axis)
            order.append(axis)
        return cls(sizes=tuple(sizes), axes=tuple(order))


def minimise(
    order: Order, unary: Sequence[Floats], tables: Mapping[Scope, Floats]
) -> tuple[float, list[int]]:
    """A lower bound of the least sum of unary and joint tables, and the choice that it points at.

    The bound is the minimum itself where no bundle was split. Ties go to the lower index.
    """
    buckets: dict[int, list[Factor]] = {a: [((a,), unary[a])] for a in order.axes}
    rank = {a: i for i, a in enumerate(order.axes)}
    bound = 0.0
    for scope, table in tables.items():
        buckets[min(scope, key=rank.__getitem__)].append((scope, table))
    for axis in order.axes:
        for bundle in _bundles(buckets[axis], order.sizes):
            scope, joint = reduce(lambda f, g: _added(f, g, order.sizes), bundle)
            rest = tuple(a for a in scope if a != axis)
            message = joint.min(axis=scope.index(axis))
            if rest:
                buckets[min(rest, key=rank.__getitem__)].append((rest, message))
            else:
                bound += float(message)
    choice = [0] * len(order.sizes)
    for axis in reversed(order.axes):
        line = np.zeros(order.sizes[axis])
        for scope, table in buckets[axis]:
            line += table[tuple(slice(None) if a == axis else choice[a] for a in scope)]
        choice[axis] = int(line.argmin())
    return bound, choice


def _bundles(factors: Sequence[Factor], sizes: Sequence[int]) -> list[list[Factor]]:
    """The factors in as few bundles as the size of joint tables allows, the widest first."""
    bundles: list[tuple[set[int], list[Factor]]] = []
    for factor in sorted(factors, key=lambda f: (-len(f[0]), f[0])):
        for scope, members in bundles:
            if np.prod([sizes[a] for a in scope | set(factor[0])], dtype=float) <= CELLS:
                scope.update(factor[0])
                members.append(factor)
                break
        else:
            bundles.append((set(factor[0]), [factor]))
    return [members for _, members in bundles]


def _added(first: Factor, second: Factor, sizes: Sequence[int]) -> Factor:
    scope = tuple(sorted({*first[0], *second[0]}))
    return scope, _spread(first, scope, sizes) + _spread(second, scope, sizes)


def _spread(factor: Factor, scope: Scope, sizes: Sequence[int]) -> Floats:
    return factor[1].reshape([sizes[a] if a in factor[0] else 1 for a in scope])
