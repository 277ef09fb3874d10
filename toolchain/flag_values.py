"""The values of flags: text -> number, shape or names. argparse puts the flag's name before the complaint."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

from toolchain.values import Precision

METRICS: Final = "top1, kappa, mean-recall, mean-precision, miou, or package.module:function (top1)"
"""What --metric takes, for help pages."""
SMALLEST_SHARE: Final = 0.5
"""Share of the input's sides down to which `--allow-resize` goes when it says no more."""


def _number(text: str, test: Callable[[float], bool], wanted: str) -> float:
    """A finite number that passes `test`; argparse names the flag before the message."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and test(value)):
        raise argparse.ArgumentTypeError(f"'{text}' is not {wanted}")
    return value


def positive(text: str) -> float:
    """A finite number above zero."""
    return _number(text, lambda v: v > 0, "a number above zero")


def not_negative(text: str) -> float:
    """A finite number of zero or more."""
    return _number(text, lambda v: v >= 0, "a number of zero or more")


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, lambda v: 0 <= v <= 1, "a number from 0 to 1")


def amount(text: str) -> int:
    """A whole amount above zero, with an optional k, M or G: `20M` is 20,000,000."""
    units = {"k": 1e3, "m": 1e6, "g": 1e9}
    unit = units.get(text[-1:].lower(), 1.0)
    digits = text[:-1] if unit > 1 else text
    try:
        value = float(digits) * unit
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or round(value) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not an amount such as 20M, 1.5G or 250000")
    return round(value)


def amounts(text: str) -> tuple[int, ...]:
    """Whole amounts parted by commas, each once, in their order."""
    return tuple(dict.fromkeys(amount(part) for part in _parts(text)))


def limits(text: str) -> tuple[float, ...]:
    """Numbers above zero parted by commas, each once, in their order."""
    return tuple(dict.fromkeys(positive_numbers(text)))


def at_least_one(text: str) -> int:
    """A whole number of one or more."""
    return int(_number(text, lambda v: v >= 1 and v == int(v), "a whole number of one or more"))


def not_negative_integer(text: str) -> int:
    """A whole number of zero or more."""
    return int(_number(text, lambda v: v >= 0 and v == int(v), "a whole number of zero or more"))


def names(text: str) -> tuple[str, ...]:
    """Names parted by commas, each once, in their order."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' names nothing")
    return found


def precisions(text: str) -> tuple[Precision, ...]:
    """Known precisions parted by commas."""
    known: tuple[Precision, ...] = get_args(Precision)
    found = names(text)
    for name in found:
        if name not in known:
            raise argparse.ArgumentTypeError(f"'{name}' is not one of {', '.join(known)}")
    return tuple(p for name in found for p in known if p == name)


def integers(text: str) -> tuple[int, ...]:
    """Whole numbers above zero, parted by commas."""
    parts = _parts(text)
    return tuple(at_least_one(part) for part in parts)


def numbers(text: str) -> tuple[float, ...]:
    """Finite numbers parted by commas."""
    return tuple(_number(part, lambda v: True, "a number") for part in _parts(text))


def positive_numbers(text: str) -> tuple[float, ...]:
    """Numbers above zero parted by commas."""
    return tuple(positive(part) for part in _parts(text))


def side_lengths(text: str) -> tuple[int, int]:
    """`H,W`, or one number for a square."""
    sides = integers(text.replace("x", ","))
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"'{text}' is not H,W")
    return sides[0], sides[-1]


def smaller_sides(text: str) -> float | tuple[tuple[int, int], ...]:
    """A share below 1, or sizes parted by commas: one number for a square, or HxW."""
    try:
        number = float(text)
    except ValueError:
        number = math.inf
    if 0 < number < 1:
        return number
    return tuple(dict.fromkeys(side_lengths(part) for part in _parts(text)))


def picture_file(text: str) -> Path:
    """A file whose ending says what kind of picture it is."""
    path = Path(text)
    if path.suffix.lower() not in (".svg", ".html"):
        raise argparse.ArgumentTypeError(f"'{text}' ends neither in .svg nor in .html")
    return path


def _parts(text: str) -> tuple[str, ...]:
    """The parts between commas; none may be empty."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list parted by commas")
    return parts
