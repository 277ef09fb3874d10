"""Loose additions after a cut: each operand has only its own channels, the result has those of either.

Given:  y = add(u, v), of which u keeps the channels a b c d, and v keeps c d e
Result: y = cat([u[a b], u[c d] + v[c d], v[e]])          channels that only one has are not added to
        y = add(spread(u), spread(v))                     where that would be too many pieces; spread(v) is v
                                                          with zeros in the place of the others
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

import numpy as np
import torch
from torch.fx import Node

from toolchain.program.axes import Call, call_of
from toolchain.program.constants import Cutting
from toolchain.program.labels import Ints
from toolchain.program.tracing import Join

PIECES: Final = 3
"""Most pieces of a concatenation. Each is a copy; a spread operand becomes one small convolution on export
(`lower`), for which onnxruntime takes less time than for more pieces (ResNet-20)."""
_aten = torch.ops.aten


def summed(cut: Cutting) -> None:
    """Rewrite the additions of a cut graph whose operands no longer match; shapes are those of the cut."""
    copies = {origin: node for node, origin in cut.origin.items()}
    for join in cut.analysis.tracing.joins:
        sides = _sides(cut, join)
        call = call_of(copies[join.node])
        assert call is not None
        if not (sides == 3).all():
            _rewrite(cut, call, join.dim, sides)


def runs(sides: Ints) -> list[tuple[int, int]]:
    """(side, length) of every run of channels of the same operands: 1 the first, 2 the second, 3 both."""
    return [(side, len(list(run))) for side, run in groupby(sides.tolist())]


def _sides(cut: Cutting, join: Join) -> Ints:
    """Which operands have each channel of the result that stays."""
    one, other = (cut.kept(vector).astype(np.int64) for vector in join.operands)
    sides = one + 2 * other
    return sides[sides > 0]


def _rewrite(cut: Cutting, call: Call, dim: int, sides: Ints) -> None:
    operands = [node for node in call.node.args[:2] if isinstance(node, Node)]
    found = runs(sides)
    if len(found) > PIECES:
        wide = [_spread(cut, call, operands[k], dim, sides & (k + 1) > 0) for k in (0, 1)]
        call.node.target, call.node.args, call.node.kwargs = _aten.add.Tensor, tuple(wide), {}
        return
    starts, pieces = [0, 0], []
    for side, length in found:
        parts = []
        for k in (0, 1):
            if side & (k + 1):
                parts.append(_slice(call, operands[k], dim, starts[k], length))
                starts[k] += length
        pieces.append(parts[0] if len(parts) == 1 else _new(call, _aten.add.Tensor, tuple(parts), parts[0]))
    call.node.target, call.node.args, call.node.kwargs = _aten.cat.default, (pieces, dim), {}


def _slice(call: Call, source: Node, dim: int, start: int, length: int) -> Node:
    """`length` channels from `start`; the tensor itself where that is all of it."""
    if length == source.meta["val"].shape[dim]:
        return source
    return _new(call, _aten.slice.Tensor, (source, dim, start, start + length), source, {dim: length})


def _spread(cut: Cutting, call: Call, source: Node, dim: int, has: Any) -> Node:
    """The operand with a zero for every channel that it has not; itself where it has all."""
    if has.all():
        return source
    places = np.where(has, np.cumsum(has) - 1, has.sum())
    index = cut.constant(call, "places", torch.from_numpy(places))
    rank, count = source.meta["val"].dim(), int(has.sum())
    amounts = [0, 0] * (rank - 1 - dim) + [0, 1]
    padded = _new(call, _aten.pad.default, (source, amounts), source, {dim: count + 1})
    return _new(call, _aten.index_select.default, (padded, dim, index), source, {dim: len(places)})


def _new(
    call: Call, target: Any, args: tuple[Any, ...], like: Node, sizes: dict[int, int] | None = None
) -> Node:
    """A call before the addition, of the shape of `like` but for `sizes`."""
    with call.node.graph.inserting_before(call.node):
        node = call.node.graph.call_function(target, args)
    value = like.meta["val"]
    shape = [(sizes or {}).get(d, size) for d, size in enumerate(value.shape)]
    node.meta["val"] = value.new_empty(shape)
    return node
