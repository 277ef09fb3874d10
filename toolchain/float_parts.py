"""Which operators of an int8 file stay in float: those whose result int8 cannot hold well enough.

A normalization divides by a root of a mean of squares: in int8 a few steps near zero decide the factor of a
row, and where kernels of two processors round differently by one step, outputs are far apart. Of the softmax
of many values most results lie within the first step. What is added and multiplied beside them (scale, shift,
residual sums, masks) costs little time and would only be rounded once more. Products with weights, where the
time goes, are in integers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

_ROOTS: Final = frozenset(
    {
        *("rsqrt", "sqrt", "layernormalization", "simplifiedlayernormalization", "rmsnormalization"),
        *("groupnormalization", "instancenormalization", "meanvariancenormalization", "lpnormalization"),
        *("softmax", "logsoftmax", "gelu", "erf"),
    }
)
_ARITHMETIC: Final = frozenset(
    {
        *("add", "sub", "mul", "div", "neg", "pow", "square", "squareddifference", "abs", "reciprocal"),
        *("mean", "sum", "reducemean", "reducesum", "reducesumsquare", "reducel2"),
        *("max", "min", "maximum", "minimum", "clip"),
    }
)
_MOVING: Final = frozenset(
    {"reshape", "transpose", "squeeze", "unsqueeze", "expanddims", "flatten", "identity"}
)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator of a file: its kind as its format names it, and the tensors it reads and writes."""

    kind: str
    reads: tuple[Hashable, ...]
    writes: tuple[Hashable, ...]


def float_operators(
    operators: Sequence[Operator], given: frozenset[Hashable], also: Collection[str] = ()
) -> frozenset[int]:
    """Numbers of the operators that stay in float; `given` are tensors that are stored in the file.

    `also` are kinds that do so where they read no stored tensor, as products of two activations.

    From the roots on, everything that calculates element by element or over a row, up to the next product.
    """
    kinds = [operator.kind.lower().replace("_", "") for operator in operators]
    beside = _neighbours(operators, given)
    found = {number for number, kind in enumerate(kinds) if kind in _ROOTS}
    found |= {n for n, o in enumerate(operators) if o.kind in also and given.isdisjoint(o.reads)}
    waiting = list(found)
    while waiting:
        before, after = beside(waiting.pop())
        for number in before | after:
            if number not in found and kinds[number] in _ARITHMETIC | _MOVING:
                found.add(number)
                waiting.append(number)
    return _trimmed(found, kinds, beside)


_Beside = Callable[[int], tuple[set[int], set[int]]]


def _neighbours(operators: Sequence[Operator], given: frozenset[Hashable]) -> _Beside:
    """Who writes what an operator reads, and who reads what it writes."""
    readers: dict[Hashable, set[int]] = {}
    writer: dict[Hashable, int] = {}
    for number, operator in enumerate(operators):
        for tensor in operator.reads:
            if tensor not in given:
                readers.setdefault(tensor, set()).add(number)
        writer.update(dict.fromkeys(operator.writes, number))

    def beside(number: int) -> tuple[set[int], set[int]]:
        operator = operators[number]
        before = {writer[tensor] for tensor in operator.reads if tensor in writer}
        after = {reader for tensor in operator.writes for reader in readers.get(tensor, ())}
        return before, after

    return beside


def _trimmed(found: set[int], kinds: Sequence[str], beside: _Beside) -> frozenset[int]:
    """Without what moves data at the edge: a quarter of the bytes in int8."""
    while True:
        edge = {
            number
            for number in found
            if kinds[number] in _MOVING and not all(found & side for side in beside(number))
        }
        if not edge:
            return frozenset(found)
        found = found - edge
