"""Operators that find elements by number: indexing, tables, gathering and scattering.

A constant list of channel numbers picks channels and is renumbered by a cut. Numbers that are computed, and
tables of which an entry means something, keep the dimension that they address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from toolchain.program.axes import Axes, Call, Value, plain
from toolchain.program.labels import Ints, Vector
from toolchain.program.tracing import Rule, Tracing, freeze_all


def index(t: Tracing, call: Call) -> Value:
    """Indexing by tensors. A constant list of channels picks their labels, anything else fixes them."""
    x = t.axes(call["self"])
    used, indices = _addressed(call, x)
    if _has_masks(indices):
        return freeze_all(t, call.node)
    labels: dict[int, Vector] = dict(enumerate(x.labels))
    positions = _listed(t, call, x, used, indices) if _is_activation(call["self"]) else None
    if positions is not None:
        labels[used[0]] = positions
        return t.yields(call.node, labels)
    for d in used:
        t.freeze(x, [d], f"{call.place}: indexed by number")
        _freeze_numbers(t, call, indices[d])
    return t.yields(call.node, _after_indexing(t, x, used, indices))


def write(t: Tracing, call: Call) -> Value:
    """Given: x, indices, values. Result: x with values written where the indices say."""
    x = t.axes(call["self"])
    used, indices = _addressed(call, x)
    name = next((n for n in ("values", "source") if n in call.positions), None)
    values = t.maybe(call[name]) if name is not None else None
    if _has_masks(indices):
        whole = len(used) == 1 and len(t.axes(indices[0])) == len(x)
        return _masked(t, call, x, t.axes(indices[0])) if whole and not values else freeze_all(t, call.node)
    positions = _listed(t, call, x, used, indices)
    if positions is None:
        for d in used:
            t.freeze(x, [d], f"{call.place}: written to by number")
            _freeze_numbers(t, call, indices[d])
    target = _after_indexing(t, x, used, indices)
    if positions is not None:
        target[used[0]] = positions
    for back in range(1, len(values or ()) + 1):
        assert values is not None
        d = max(target) + 1 - back
        if values.shape[-back] != 1:
            t.tie(target[d], values.labels[-back], call)
    return x


def gather(t: Tracing, call: Call) -> Value:
    """Given: x, dim, index and perhaps src, all of the same rank. The dimension addressed stays."""
    x, numbers = t.axes(call["self"]), t.axes(call["index"] if call["index"] is not None else call["indices"])
    if call["dim"] is None:
        return freeze_all(t, call.node)
    src = t.maybe(call["src"])
    labels: dict[int, Vector] = {}
    for d in range(len(x)):
        if d == x.dim(call["dim"]):
            for axes in (x, numbers, src):
                t.freeze(axes, [d], f"{call.place}: addressed by number")
        elif x.shape[d] == numbers.shape[d]:
            labels[d] = t.tie(x.labels[d], numbers.labels[d], call)
            if src is not None and src.shape[d] == x.shape[d]:
                t.tie(x.labels[d], src.labels[d], call)
            else:
                t.freeze(src, [d], f"{call.place}: read in part")
        else:
            for axes in (x, numbers, src):
                t.freeze(axes, [d], f"{call.place}: addressed in part")
    return t.yields(call.node, labels)


def embedding(t: Tracing, call: Call) -> Value:
    """Given: weight [entries, d], indices [...]. Result: [..., d]; the entries stay."""
    table, numbers = t.axes(call["weight"]), t.axes(call["indices"])
    t.freeze(table, [0], f"{call.place}: entries of a table")
    _freeze_numbers(t, call, call["indices"])
    if call.op != "embedding":
        weights = t.maybe(call["per_sample_weights"])
        t.freeze(weights, range(len(weights or ())), f"{call.place}: one weight an entry")
        shapes = [t.sizes.shape(value) for value in call.node.meta["val"]]
        return (Axes(shape=shapes[0], labels=(None, table.labels[1])), *(plain(s) for s in shapes[1:]))
    return t.yields(call.node, {len(numbers): table.labels[1]})


def _addressed(call: Call, x: Axes) -> tuple[list[int], list[Any]]:
    """The dimensions that are addressed, and the index of every leading dimension, None for all of it."""
    if "indices" in call.positions:
        indices = list(call["indices"])
    else:
        indices = [None] * x.dim(call["dim"]) + [call["index"]]
    return [d for d, i in enumerate(indices) if i is not None], indices


def _listed(t: Tracing, call: Call, x: Axes, used: Sequence[int], indices: Sequence[Any]) -> Vector:
    """The labels at the places of a constant list; None where it is none, or nothing is labelled."""
    vector = x.labels[used[0]] if len(used) == 1 else None
    numbers = _constant_numbers(t, indices[used[0]]) if vector is not None else None
    if vector is None or numbers is None:
        return None
    t.freeze(t.axes(indices[used[0]]), [0], f"{call.place}: list of channel numbers")
    t.facts[call.node] = {"source": vector, "result": vector[numbers]}
    return vector[numbers]


def _masked(t: Tracing, call: Call, x: Axes, mask: Axes) -> Value:
    """One value wherever a mask of the same shape says."""
    pairs = zip(x.labels, mask.labels, strict=True)
    return t.yields(call.node, {d: t.tie(own, other, call) for d, (own, other) in enumerate(pairs)})


def _after_indexing(t: Tracing, x: Axes, used: Sequence[int], indices: Sequence[Any]) -> dict[int, Vector]:
    """Where the dimensions not indexed end up."""
    count = max((len(t.axes(indices[d])) for d in used), default=0)
    together = list(used) == list(range(used[0], used[-1] + 1)) if used else True
    place = used[0] if used and together else 0
    rest = [v for d, v in enumerate(x.labels) if d not in used]
    return dict(enumerate([*rest[:place], *[None] * count, *rest[place:]]))


def _freeze_numbers(t: Tracing, call: Call, node: Any) -> None:
    axes = t.maybe(node)
    t.freeze(axes, range(len(axes or ())), f"{call.place}: used as numbers")


def _has_masks(indices: Sequence[Any]) -> bool:
    tensors = (i.meta.get("val") for i in indices if isinstance(i, Node))
    return any(isinstance(v, Tensor) and v.dtype in (torch.bool, torch.uint8) for v in tensors)


def _constant_numbers(t: Tracing, node: Any) -> Ints | None:
    """The numbers of a constant one-dimensional index."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Any = t.module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor) or value.dim() != 1 or value.dtype not in (torch.int64, torch.int32):
        return None
    return value.numpy().astype(np.int64)


def _is_activation(node: Node) -> bool:
    """Not a parameter or buffer itself: rows of tables are addressed by meaning, channels by position."""
    return node.op != "get_attr"


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(["index", "index_select"], index),
    **dict.fromkeys(["index_put", "_index_put_impl", "index_add", "index_copy", "index_fill"], write),
    **dict.fromkeys(["gather", "scatter", "scatter_add", "scatter_reduce", "take_along_dim"], gather),
    **dict.fromkeys(["embedding", "embedding_bag", "_embedding_bag"], embedding),
}
