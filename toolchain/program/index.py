"""Where the units of a channel group are along a dimension, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Index(Sequence[tuple[int, ...]]):
    """The positions of every unit of a group along one dimension, in two arrays however many there are.

    `index[u]` is the tuple of unit u's positions. `positions` [n] holds all of them, unit by unit;
    `starts` [units + 1] says where each unit's begin. Neither array is ever changed.
    """

    __slots__ = ("positions", "starts")

    def __init__(self, positions: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        self.positions = positions
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, unit: Any) -> Any:
        if isinstance(unit, slice):
            return tuple(self[u] for u in range(*unit.indices(len(self))))
        if not -len(self) <= unit < len(self):
            raise IndexError(f"unit {unit} of {len(self)}")
        unit %= len(self)
        return tuple(self.positions[self.starts[unit] : self.starts[unit + 1]].tolist())

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        flat, starts = self.positions.tolist(), self.starts.tolist()
        return (tuple(flat[a:b]) for a, b in pairwise(starts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
