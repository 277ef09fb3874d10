"""Views that flatten dimensions and divide them anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Final

from toolchain.program.axes import Axes, Call, Value, plain
from toolchain.program.labels import Vector, regroup
from toolchain.program.rules.shuffling import shuffle_from, shuffled
from toolchain.program.tracing import Rule, Tracing


def reshape(t: Tracing, call: Call) -> Value:
    """Runs of dimensions are flattened and unflattened; see `Labels.split` for what that ties."""
    x, shape = t.axes(next(call.tensors())), t.shape(call.node)
    if call.node in t.shuffles:
        shuffle = t.shuffles[call.node]
        return shuffled(t.axes(shuffle.source), shuffle)
    if x.shape == shape:
        return x
    found = shuffle_from(call.node, x, t.sizes)
    if found is not None and x.labels[found[1].dim] is not None:
        t.shuffles[found[0]] = found[1]
        # What lies between is replaced where channels go; only the result matters.
        return plain(shape)
    labels: dict[int, Vector] = {}
    for before, after in regroup(x.shape, shape):
        if all(x.labels[d] is None for d in before):
            continue
        own = [(x.labels[d], x.shape[d]) for d in before]
        parts = _regrouped(t, own, [shape[d] for d in after], f"{call.place} ({call.op})")
        labels.update(zip(after, parts, strict=True))
    return t.yields(call.node, labels)


def like(t: Tracing, call: Call) -> Value:
    """The shape is read off another tensor; both exist together."""
    value, other = reshape(t, call), t.axes(call["other"])
    assert isinstance(value, Axes)
    return t.yields(
        call.node,
        {d: t.tie(v, o, call) for d, (v, o) in enumerate(zip(value.labels, other.labels, strict=True))},
    )


def _regrouped(
    t: Tracing, before: Sequence[tuple[Vector, int]], after: Sequence[int], reason: str
) -> list[Vector]:
    """Given: [n, h * d]. Result: [n * h, d], by way of [n, h, d], the finest sizes that both are made of.

    Sizes that have no such common division are flattened whole.
    """
    finest = _divided([size for _, size in before], after)
    if finest is None:
        whole = t.labels.merge([v for v, _ in before], [n for _, n in before])
        return t.labels.split(whole, after, reason)
    pieces: list[Vector] = []
    for vector, size in before:
        own = _leading(finest[len(pieces) :], size)
        pieces.extend(t.labels.split(vector, own, reason))
    result: list[Vector] = []
    place = 0
    for size in after:
        own = _leading(finest[place:], size)
        result.append(t.labels.merge(pieces[place : place + len(own)], own) if own else None)
        place += len(own)
    return result


def _divided(before: Sequence[int], after: Sequence[int]) -> list[int] | None:
    """The sizes between all edges of both shapes; None where an edge does not divide the next."""
    edges = {1, *_edges(before), *_edges(after)}
    ordered = sorted(edges, reverse=True)
    if any(wide % narrow for wide, narrow in pairwise(ordered)):
        return None
    return [wide // narrow for wide, narrow in pairwise(ordered)]


def _edges(sizes: Sequence[int]) -> list[int]:
    return [prod(sizes[place:]) for place in range(len(sizes))]


def _leading(sizes: Sequence[int], product: int) -> list[int]:
    """The first sizes that make up the product."""
    count = 0
    while prod(sizes[:count]) < product:
        count += 1
    return list(sizes[:count])


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        ["view", "reshape", "_unsafe_view", "view_copy", "flatten", "unflatten", "_reshape_alias", "ravel"],
        reshape,
    ),
    **dict.fromkeys(["reshape_as", "view_as"], like),
}
