"""Channel shuffles: a fixed permutation of one dimension, however it is written.

Given:  view [.., g, k, ..], transpose of the two, reshape back
Result: y = x[:, permutation]      no channel is tied to another

Followed view by view, each shuffle would tie channels of equal place in all groups, and a row of shuffles
(ShuffleNetV2) ever more of them. Seen whole, a cut leaves a list of the kept channels' new places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch.fx import Node

from toolchain.program.axes import Axes, Sizes, call_of
from toolchain.program.labels import Ints

_VIEWS = ("view", "reshape", "_unsafe_view", "unflatten", "flatten", "view_copy")


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """Position i of dimension `dim` of the result is position `permutation[i]` of the source."""

    source: Node
    dim: int
    permutation: Ints


def transposed_positions(size: int, groups: int) -> Ints:
    """The permutation of [groups, size / groups] read column by column."""
    positions: Ints = np.arange(size).reshape(groups, -1).T.reshape(-1)
    return positions


def shuffled(source: Axes, shuffle: Shuffle) -> Axes:
    """The labelled shape after the shuffle."""
    labels = list(source.labels)
    vector = labels[shuffle.dim]
    assert vector is not None
    labels[shuffle.dim] = vector[shuffle.permutation]
    return Axes(shape=source.shape, labels=tuple(labels))


def shuffle_from(view: Node, source: Axes, sizes: Sizes) -> tuple[Node, Shuffle] | None:
    """The node where a shuffle that begins at `view` ends, and the shuffle; None where it is none."""
    wide = sizes.shape(view.meta["val"])
    dim = _divided(source.shape, wide)
    swap = _only_user(view)
    if dim is None or swap is None or not _swaps(swap, dim, len(wide)):
        return None
    end = _only_user(swap)
    while end is not None and (call := call_of(end)) is not None and call.op in ("contiguous", "clone"):
        end = _only_user(end)
    call = call_of(end) if end is not None else None
    if end is None or call is None or call.op not in _VIEWS:
        return None
    if sizes.shape(end.meta["val"]) != source.shape:
        return None
    origin = view.all_input_nodes[0]
    permutation = transposed_positions(source.shape[dim], wide[dim])
    return end, Shuffle(source=origin, dim=dim, permutation=permutation)


def _divided(before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """The dimension that the view divides in two; None where it does anything else."""
    if len(after) != len(before) + 1:
        return None
    for dim, size in enumerate(before):
        if before[:dim] == after[:dim] and before[dim + 1 :] == after[dim + 2 :]:
            first, second = after[dim], after[dim + 1]
            if first * second == size and min(first, second) > 1:
                return dim
    return None


def _swaps(node: Node, dim: int, rank: int) -> bool:
    """Whether the node exchanges dimensions `dim` and `dim` + 1 and nothing else."""
    call = call_of(node)
    if call is None:
        return False
    if call.op == "transpose":
        return {call["dim0"] % rank, call["dim1"] % rank} == {dim, dim + 1}
    if call.op == "permute":
        wanted = list(range(rank))
        wanted[dim : dim + 2] = dim + 1, dim
        return [d % rank for d in call["dims"]] == wanted
    return False


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
