"""What of a network's input is handed to it, where some of it was found to be of no use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

VIEWED: Final = "edgefit.input"
"""The entry in a file's metadata that says what of the input is handed over, after preprocessing."""
USEFUL: Final = math.log(2)
"""Nats from which on a part is kept: its gate is then open more often than not."""


@dataclass(frozen=True, kw_only=True)
class InputView:
    """What a sample of the original's only input [`shape`] becomes, in this order.

    It is flattened row by row where `flat`. Of its first dimension only the positions `kept` stay (channels
    of an image, features of a vector; ascending, None: all), of an image only the rectangle `crop` (top,
    left, height, width; None: all), in which the squares `blank` are set to zero: (row, column) counted in
    squares of `block` x `block` pixels from the corner of the whole image.

    `nats` and `block_nats` say what each channel or feature and each square is worth: the nats by which
    leaving it out contradicts what was learned (None: it has to stay; empty: nothing is known). They change
    nothing.
    """

    shape: tuple[int, ...]
    flat: bool = False
    kept: tuple[int, ...] | None = None
    crop: tuple[int, int, int, int] | None = None
    block: int = 0
    blank: tuple[tuple[int, int], ...] = ()
    nats: tuple[float | None, ...] = ()
    block_nats: tuple[tuple[float, ...], ...] = ()

    @property
    def count(self) -> int:
        """Channels, or features, of the whole input."""
        return math.prod(self.shape) if self.flat else self.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that are handed over, of an image that stays one."""
        return self.shape[1:] if self.crop is None else self.crop[2:]  # type: ignore[return-value]


def described(view: InputView) -> str:
    """`channels 0, 2 of 3; rows 4-27 and columns 0-31 of 32 x 32; 3 squares of 4 x 4 pixels set to 0`."""
    parts = []
    if view.kept is not None:
        what = "channel" if len(view.shape) > 1 and not view.flat else "feature"
        numbers = ranges(view.kept)
        parts.append(f"{what}{'s' * (len(view.kept) > 1)} {numbers} of {view.count}")
    if view.flat:
        parts.append(f"counted row by row in {' x '.join(map(str, view.shape))}")
    if view.crop is not None:
        top, left, height, width = view.crop
        rows, columns = f"rows {top}-{top + height - 1}", f"columns {left}-{left + width - 1}"
        parts.append(f"{rows} and {columns} of {view.shape[1]} x {view.shape[2]}")
    if view.blank:
        squares = f"square{'s' * (len(view.blank) > 1)} of {view.block} x {view.block} pixels"
        parts.append(f"{len(view.blank)} {squares} set to 0")
    return "; ".join(parts)


def ranges(numbers: tuple[int, ...]) -> str:
    """`0-3, 7, 9-12` of ascending numbers."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
