"""The label algebra: which channel ("atom") does position i of a dimension belong to?

A *vector* gives one label to every position of one dimension; `None` is a dimension none of whose positions
may ever go. Removing an atom removes every position labelled with it, in every tensor at once. Labels form a
union-find: what an operator ties is removed together. A label may also be the *product* of two others: the
position then exists only where both do (channel = head and index within the head). Label 0 always stays.

Time is linear in the positions tied (union-find with vectorised pointer jumping), independent of the sizes of
the activations: a dimension is labelled once, not every element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Vector = Ints | None
FIXED = 0
"""The label of positions that always stay."""


class Labels:
    """A growing set of labels with ties, products and reasons for being frozen."""

    def __init__(self) -> None:
        self._count = 1
        self._parent = np.zeros(1 << 16, np.int64)
        self._left = np.zeros(1 << 16, np.int64)
        self._right = np.zeros(1 << 16, np.int64)
        self._reason = np.zeros(1 << 16, np.int64)
        self._reasons = [""]
        self._reason_number: dict[str, int] = {}
        self._pairs: dict[int, int] = {}
        self._products = False
        self._settled: Ints | None = None

    def __len__(self) -> int:
        return self._count

    def mint(self, size: int) -> Vector:
        """New atoms, one a position; a dimension of size 1 cannot lose anything and gets none."""
        return self._new(size) if size > 1 else None

    def fresh(self, size: int) -> Ints:
        """New atoms, one a position, whatever the size."""
        return self._new(size)

    def roots(self, vector: Ints) -> Ints:
        """The representative of every label: an atom, a product of two labels not fixed, or 0."""
        if self._settled is not None:
            return self._settled[vector]
        found = self._find(vector)
        if self._products:
            while (product := self._left[found] > 0).any() and self._simplify(np.unique(found[product])):
                found = self._find(vector)
        frozen = self._reason[found]
        return np.where(frozen > 0, FIXED, found) if frozen.any() else found

    def settle(self) -> None:
        """Look all representatives up at once; reading is quick from now on, until labels change again."""
        self._settled = None
        self._settled = self.roots(np.arange(self._count))

    def atoms(self, vector: Ints) -> list[Ints]:
        """Columns of atoms: position i exists while every atom `column[i]` does; 0 is no condition."""
        found = self.roots(vector)
        if not self._products or not (product := self._left[found] > 0).any():
            return [found]
        left = np.where(product, self._left[found], found)
        right = np.where(product, self._right[found], FIXED)
        return [c for c in (*self.atoms(left), *self.atoms(right)) if c.any()] or [np.zeros_like(vector)]

    def reason(self, label: int) -> str:
        """Why the label is frozen, empty where it is not."""
        found = int(self._find(np.array([label]))[0])
        if self._left[found]:
            both = (self.reason(int(self._left[found])), self.reason(int(self._right[found])))
            return both[0] or both[1] if all(both) else ""
        return self._reasons[int(self._reason[found])]

    def reasons(self, vector: Ints) -> dict[str, int]:
        """How many of these positions, all of which stay, do so for which reason; needs settled labels."""
        numbers, times = np.unique(self._reason[self._find(vector)], return_counts=True)
        return {self._reasons[n]: t for n, t in zip(numbers.tolist(), times.tolist(), strict=True)}

    def freeze(self, vector: Vector, reason: str) -> None:
        """Nothing labelled so may ever be removed."""
        if vector is None or not vector.size:
            return
        self._settled = None
        found = np.unique(self._find(vector))
        product = self._left[found] > 0
        if product.any():
            self.freeze(self._left[found[product]], reason)
            self.freeze(self._right[found[product]], reason)
        number = self._reason_number.setdefault(reason, len(self._reasons))
        if number == len(self._reasons):
            self._reasons.append(reason)
        free = found[~product & (found > 0)]
        free = free[self._reason[free] == 0]
        self._reason[free] = number

    def tie(self, first: Vector, second: Vector, reason: str) -> Vector:
        """Positions of both exist together from now on; `reason` is told where one side is fixed."""
        if first is None or second is None:
            self.freeze(first, reason)
            self.freeze(second, reason)
            return None
        if first is second:
            return first
        one, other = self.roots(first), self.roots(second)
        if self._adopted(one, other) or self._adopted(other, one) or (one == other).all():
            return first
        while True:
            one, other = self.roots(first), self.roots(second)
            self.freeze(second[one == FIXED], self._inherited(first[one == FIXED], reason))
            self.freeze(first[other == FIXED], self._inherited(second[other == FIXED], reason))
            one, other = self.roots(first), self.roots(second)
            if not np.array_equal(one == FIXED, other == FIXED):
                continue  # a label frozen at one position occurs at others too
            open_ = (one != other) & (one != FIXED) & (other != FIXED)
            if not open_.any():
                return first
            self._unify(one[open_], other[open_], reason)

    def pair(self, first: Vector, second: Vector) -> Vector:
        """Labels that exist where both do, position by position."""
        if first is None or second is None:
            return second if first is None else first
        one, other = self.roots(first), self.roots(second)
        plain = (one == FIXED) | (other == FIXED) | (one == other)
        result = np.where(one == FIXED, other, one)
        open_ = np.flatnonzero(~plain)
        low, high = np.minimum(one[open_], other[open_]), np.maximum(one[open_], other[open_])
        keys = (low << 32 | high).tolist()
        missing = [place for place, key in enumerate(keys) if key not in self._pairs]
        if missing:
            made = self._new(len(missing))
            self._products = True
            self._left[made], self._right[made] = one[open_[missing]], other[open_[missing]]
            for place, label in zip(missing, made.tolist(), strict=True):
                self._pairs.setdefault(keys[place], label)
        result[open_] = [self._pairs[key] for key in keys]
        return result

    def merge(self, vectors: Sequence[Vector], sizes: Sequence[int]) -> Vector:
        """The vector of dimensions flattened into one, the last one running fastest."""
        result: Vector = None
        done = 1
        for vector, size in zip(vectors, sizes, strict=True):
            wide = None if result is None else np.repeat(result, size)
            result = self.pair(wide, None if vector is None else np.tile(vector, done))
            done *= size
        return result

    def split(self, vector: Vector, sizes: Sequence[int], reason: str) -> list[Vector]:
        """The vectors of a dimension unflattened into `sizes`; ties what the new shape cannot tell apart."""
        result: list[Vector] = [None] * len(sizes)
        if vector is None or not vector.size:
            return result
        wide = [d for d, size in enumerate(sizes) if size > 1]
        if len(wide) == 1:
            result[wide[0]] = vector
            return result
        for column in self._roles(vector):
            varying = _varying(self.roots(column).reshape(sizes), wide)
            if len(varying) > 1 and self._is_fresh(column, sizes, varying):
                for d, part in self._factorise(column, sizes, varying).items():
                    result[d] = self.pair(result[d], part)
            elif varying:
                keep = max(varying, key=lambda d: (sizes[d], d))
                line = _line(column.reshape(sizes), keep)
                if len(varying) > 1:
                    shape = [size if d == keep else 1 for d, size in enumerate(sizes)]
                    spread = np.broadcast_to(line.reshape(shape), sizes).reshape(-1)
                    self.tie(spread.copy(), column, reason)
                result[keep] = self.pair(result[keep], line)
            else:
                first = self.roots(column[:1])
                if first[0] != FIXED:
                    self.freeze(column, f"{reason}: one channel over a whole dimension")
        return result

    def _new(self, size: int) -> Ints:
        while self._count + size > len(self._parent):
            for name in ("_parent", "_left", "_right", "_reason"):
                old: Ints = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
        self._settled = None
        made = np.arange(self._count, self._count + size)
        self._parent[self._count : self._count + size] = made
        self._count += size
        return made

    def _adopted(self, old: Ints, new: Ints) -> bool:
        """Tie atoms all different and younger than the others at one stroke: what most ties are about."""
        if not new.size or new[0] <= old.max() or not old.all() or (new[1:] <= new[:-1]).any():
            return False
        if self._products and (self._left[old].any() or self._left[new].any()):
            return False
        self._settled = None
        self._parent[new] = old
        return True

    def _find(self, vector: Ints) -> Ints:
        found = self._parent[vector]
        further = self._parent[found]
        if (further == found).all():
            return found
        while not np.array_equal(further, found):
            found, further = further, self._parent[further]
        self._parent[vector] = found
        return found

    def _simplify(self, products: Ints) -> bool:
        """Products with a fixed factor, or of one label with itself, are the other factor."""
        left, right = self.roots(self._left[products]), self.roots(self._right[products])
        if not self._left[products].all():
            return True  # looking its factors up has simplified one of these itself
        plain = (left == FIXED) | (right == FIXED) | (left == right)
        becomes = np.where(left == FIXED, right, left)
        if not plain.any():
            return False
        gone, becomes = products[plain], becomes[plain]
        becomes = np.where(becomes == FIXED, self._find(self._left[gone]), becomes)
        self._left[gone] = self._right[gone] = 0
        self._parent[gone] = becomes
        return True

    def _inherited(self, vector: Ints, reason: str) -> str:
        """The reason of the frozen labels that are tied to, `reason` where they are none of a parameter."""
        for label in vector[:1]:
            return self.reason(int(label)) or reason
        return reason

    def _unify(self, one: Ints, other: Ints, reason: str) -> None:
        """Tie representatives that differ; called until nothing differs any more."""
        self._settled = None
        products = (self._left[one] > 0, self._left[other] > 0)
        both = products[0] & products[1]
        if both.any():
            self._unify_products(one[both], other[both], reason)
            return
        mixed = products[0] | products[1]
        if mixed.any():
            swapped = products[0][mixed]
            atom = np.where(swapped, other[mixed], one[mixed])
            product = np.where(swapped, one[mixed], other[mixed])
            if np.isin(atom, np.concatenate(self.atoms(product))).any():
                self._define(int(atom[0]), int(product[0]), reason)
            else:
                self._parent[atom[::-1]] = product[::-1]
            return
        low, high = np.minimum(one, other), np.maximum(one, other)
        self._parent[high] = low
        self._find(high)

    def _define(self, atom: int, product: int, reason: str) -> None:
        """The atom becomes the product; where it is a factor of it, the other factors are fixed."""
        columns = np.array([c[0] for c in self.atoms(np.array([product]))])
        if atom in columns:
            self.freeze(columns[columns != atom], reason)
        else:
            self._parent[atom] = product

    def _unify_products(self, one: Ints, other: Ints, reason: str) -> None:
        left, right = self._left[one], self._right[one]
        for first, second in (
            (self._left[other], self._right[other]),
            (self._right[other], self._left[other]),
        ):
            if self._matches(left, first) and self._matches(right, second):
                self.tie(left.copy(), first.copy(), reason)
                self.tie(right.copy(), second.copy(), reason)
                for a, b in zip(one.tolist(), other.tolist(), strict=True):
                    low, high = self._find(np.array([a, b])).tolist()
                    if low != high and self._left[low] and self._left[high]:
                        self._parent[low] = high
                return
        for side in (one, other):
            factors = (self._left[side], self._right[side])
            smaller = min(factors, key=lambda f: len(np.unique(self.roots(f))))
            self.freeze(smaller.copy(), reason)

    def _matches(self, first: Ints, second: Ints) -> bool:
        """Whether the tie of the two is a one-to-one correspondence that merges nothing within a side."""
        pairs = np.unique(np.stack([self.roots(first), self.roots(second)]), axis=1)
        return bool(len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1])))

    def _roles(self, vector: Ints) -> list[Ints]:
        """Columns of labels that play one role each (head, index in the head), or the vector itself."""
        found = self.roots(vector)
        product = self._left[found] > 0
        if not product.any() or not np.all(product | (found == FIXED)):
            return [vector]
        left = np.where(product, self._left[found], FIXED)
        right = np.where(product, self._right[found], FIXED)
        return [*self._roles(left), *self._roles(right)]

    def _is_fresh(self, column: Ints, sizes: Sequence[int], varying: Sequence[int]) -> bool:
        """Distinct atoms that nothing constrains, so that they may be defined as products."""
        found = _block(self.roots(column).reshape(sizes), varying).reshape(-1)
        return bool((found > 0).all() and not self._left[found].any() and len(np.unique(found)) == found.size)

    def _factorise(self, column: Ints, sizes: Sequence[int], varying: Sequence[int]) -> dict[int, Ints]:
        """Given: atoms x[i, j]. Result: x[i, j] = a[i] and b[j], with new atoms a, b."""
        old = _block(self.roots(column).reshape(sizes), varying).reshape(-1)
        parts = {d: self._new(sizes[d]) for d in varying}
        whole = self.merge(list(parts.values()), [sizes[d] for d in varying])
        assert whole is not None
        self._settled = None
        self._parent[old] = whole
        return parts


def _varying(block: Ints, wide: Sequence[int]) -> list[int]:
    """Dimensions along which the block is not constant."""
    return [d for d in wide if (block != block.take([0], d)).any()]


def _line(block: Ints, keep: int) -> Ints:
    """The block along dimension `keep`, at 0 in all others."""
    at: list[Any] = [0] * block.ndim
    at[keep] = slice(None)
    line: Ints = block[tuple(at)].copy()
    return line


def _block(block: Ints, keep: Sequence[int]) -> Ints:
    """The block along the dimensions `keep`, at 0 in all others."""
    return block[tuple(slice(None) if d in keep else 0 for d in range(block.ndim))]


def regroup(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions of equal product: how a reshape from `before` to `after` moves dimensions."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        run: tuple[list[int], list[int]] = ([], [])
        sizes = [1, 1]
        while True:
            if sizes[0] <= sizes[1] and i < len(before) and (sizes[0] < sizes[1] or not run[0]):
                run[0].append(i)
                sizes[0] *= before[i]
                i += 1
            elif j < len(after) and (sizes[1] < sizes[0] or not run[1]):
                run[1].append(j)
                sizes[1] *= after[j]
                j += 1
            else:
                break
        runs.append(run)
    return runs


__all__ = ["FIXED", "Ints", "Labels", "Vector", "regroup"]
