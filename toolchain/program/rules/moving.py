"""Operators that move elements: views, permutations, cuts, joins, pads, repeats, indexing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from toolchain.program.axes import Axes, Call, Value
from toolchain.program.labels import FIXED, Ints, Vector
from toolchain.program.tracing import Rule, Tracing, freeze_all


def permute(t: Tracing, call: Call) -> Value:
    """The dimensions change places."""
    x = t.axes(call["self"])
    order = list(range(len(x)))
    if call.op == "permute":
        order = [x.dim(d) for d in call["dims"]]
    elif call.op in ("transpose", "swapaxes", "swapdims"):
        first, second = (x.dim(call[k]) for k in _two(call))
        order[first], order[second] = order[second], order[first]
    elif call.op == "movedim":
        source, target = (_several(call[k]) for k in ("source", "destination"))
        order = [d for d in order if d not in [x.dim(s) for s in source]]
        for place, dim in sorted((x.dim(p), x.dim(s)) for s, p in zip(source, target, strict=True)):
            order.insert(place, dim)
    elif call.op in ("t", "numpy_T"):
        order.reverse()
    else:
        order[-2:] = order[:-3:-1]
    return Axes(shape=tuple(x.shape[d] for d in order), labels=tuple(x.labels[d] for d in order))


def unsqueeze(t: Tracing, call: Call) -> Value:
    """A dimension of size 1 comes in."""
    x = t.axes(call["self"])
    at = call["dim"] % (len(x) + 1)
    labels = (*x.labels[:at], None, *x.labels[at:])
    return Axes(shape=t.shape(call.node), labels=labels)


def squeeze(t: Tracing, call: Call) -> Value:
    """Dimensions of size 1 go; a kept count of 1 must not be squeezed, so the rewriting names them."""
    x = t.axes(call["self"])
    asked = [x.dim(d) for d in _several(call["dim"])] if call["dim"] is not None else list(range(len(x)))
    kept = [d for d in range(len(x)) if d not in asked or x.shape[d] != 1]
    return Axes(shape=t.shape(call.node), labels=tuple(x.labels[d] for d in kept))


def expand(t: Tracing, call: Call) -> Value:
    """Dimensions of size 1 are repeated; any number of these equal copies may go with what they meet."""
    x, shape = t.axes(call["self"]), t.shape(call.node)
    new = len(shape) - len(x)
    if call.op == "expand_as":
        labels = dict(enumerate(t.axes(call["other"]).labels))
    else:
        literal = [isinstance(size, int) for size in call["size"]]
        labels = {d: t.labels.mint(n) if literal[d] else None for d, n in enumerate(shape)}
    labels.update({new + d: v for d, v in enumerate(x.labels) if x.shape[d] == shape[new + d]})
    return t.yields(call.node, labels)


def select(t: Tracing, call: Call) -> Value:
    """One position of a dimension: it stays, the others may go."""
    x = t.axes(call["self"])
    dim = x.dim(call["dim"])
    vector = x.labels[dim]
    if vector is not None:
        if not isinstance(call["index"], int):
            return freeze_all(t, call.node)
        at = call["index"] % x.shape[dim]
        t.labels.freeze(vector[at : at + 1], f"{call.node.name}: selected by number")
        t.facts[call.node] = {"vector": vector}
    return Axes(shape=t.shape(call.node), labels=tuple(v for d, v in enumerate(x.labels) if d != dim))


def cut(t: Tracing, call: Call) -> Value:
    """A range of a dimension."""
    x = t.axes(call["self"])
    dim = x.dim(call["dim"] or 0)
    labels = list(x.labels)
    if labels[dim] is not None:
        positions = range_of(call, x.shape[dim])
        if positions is None:
            return freeze_all(t, call.node)
        labels[dim] = labels[dim][positions]  # type: ignore[index]
    return t.yields(call.node, dict(enumerate(labels)))


def range_of(call: Call, size: int) -> slice | None:
    """The range that a slice or narrow takes along its dimension; None where it is not constant."""
    if call.op == "narrow":
        bounds: list[Any] = [call["start"], None, 1]
        if isinstance(call["start"], int) and isinstance(call["length"], int):
            start = call["start"] % size if call["start"] < 0 else call["start"]
            return slice(start, start + call["length"], 1)
    else:
        bounds = [call["start"], call["end"], call["step"]]
    if not all(b is None or isinstance(b, int) for b in bounds):
        return None
    return slice(*slice(*bounds).indices(size))


def write_slice(t: Tracing, call: Call) -> Value:
    """Given: x, src. Result: x with src written into a range of it; both exist together there."""
    x, src = t.axes(call["self"]), t.axes(call["src"])
    dim = x.dim(call["dim"] or 0)
    for d in range(len(x)):
        vector = x.labels[d]
        if d == dim and vector is not None:
            positions = range_of(call, x.shape[dim])
            if positions is None:
                return freeze_all(t, call.node)
            vector = vector[positions]
        t.tie(vector, src.labels[d], call)
    return x


def divide(t: Tracing, call: Call) -> Value:
    """Consecutive ranges of a dimension: split, chunk, unbind and their kin."""
    x = t.axes(call["self"])
    dim = x.dim(call["dim"] or 0)
    shapes = [t.sizes.shape(v) for v in call.node.meta["val"]]
    if call.op == "unbind":
        t.freeze(x, [dim], f"{call.node.name}: selected by number")
        labels = tuple(v for d, v in enumerate(x.labels) if d != dim)
        return tuple(Axes(shape=s, labels=labels) for s in shapes)
    parts: list[Axes] = []
    start = 0
    for shape in shapes:
        own = list(x.labels)
        if own[dim] is not None:
            own[dim] = own[dim][start : start + shape[dim]]  # type: ignore[index]
            if shape[dim] == 1:
                t.labels.freeze(own[dim], f"{call.node.name}: alone in its part")
                own[dim] = None
        start += shape[dim]
        parts.append(Axes(shape=shape, labels=tuple(own)))
    return tuple(parts)


def join(t: Tracing, call: Call) -> Value:
    """Concatenation: one dimension is strung together, the others exist together."""
    parts = [t.axes(node) for node in call.tensors()]
    parts = [p for p in parts if p.shape != (0,)]
    dim = parts[0].dim(call["dim"] or 0)
    labels: list[Vector] = list(parts[0].labels)
    for other in parts[1:]:
        for d in range(len(other)):
            if d != dim:
                labels[d] = t.tie(labels[d], other.labels[d], call)
    labels[dim] = _strung([(p.labels[dim], p.shape[dim]) for p in parts])
    return t.yields(call.node, dict(enumerate(labels)))


def stack(t: Tracing, call: Call) -> Value:
    """A new dimension of which nothing may be removed."""
    parts = [t.axes(node) for node in call.tensors()]
    labels = list(parts[0].labels)
    for other in parts[1:]:
        labels = [t.tie(a, b, call) for a, b in zip(labels, other.labels, strict=True)]
    at = (call["dim"] or 0) % (len(labels) + 1)
    return t.yields(call.node, dict(enumerate([*labels[:at], None, *labels[at:]])))


def pad(t: Tracing, call: Call) -> Value:
    """Constant pads along a labelled dimension are channels of their own, which may be removed too."""
    x = t.axes(call["self"])
    amounts = call["pad"]
    mode = call["mode"] or "constant"
    labels = list(x.labels)
    for k in range(len(amounts) // 2):
        dim = len(x) - 1 - k
        before, after = amounts[2 * k], amounts[2 * k + 1]
        if (before, after) == (0, 0) or labels[dim] is None:
            continue
        if mode != "constant" or not isinstance(before, int) or not isinstance(after, int):
            t.freeze(x, [dim], f"{call.node.name}: padded along this dimension")
            labels[dim] = None
        elif before < 0 or after < 0:
            t.freeze(x, [dim], f"{call.node.name}: cropped along this dimension")
            labels[dim] = None
        else:
            ends = [t.labels.fresh(n) for n in (before, after)]
            labels[dim] = np.concatenate([ends[0], labels[dim], ends[1]])
    return t.yields(call.node, dict(enumerate(labels)))


def roll(t: Tracing, call: Call) -> Value:
    """Positions move round; the rewriting counts how many of the kept ones do."""
    x = t.axes(call["self"])
    labels = list(x.labels)
    if not call["dims"]:
        return freeze_all(t, call.node) if any(v is not None for v in labels) else x
    for shift, dim in zip(_several(call["shifts"]), (x.dim(d) for d in _several(call["dims"])), strict=True):
        vector = labels[dim]
        if vector is not None:
            labels[dim] = np.roll(vector, shift)
    return t.yields(call.node, dict(enumerate(labels)))


def flip(t: Tracing, call: Call) -> Value:
    """Positions in reverse order."""
    x = t.axes(call["self"])
    turned = {x.dim(d) for d in call["dims"]}
    labels = {d: v[::-1].copy() if v is not None and d in turned else v for d, v in enumerate(x.labels)}
    return t.yields(call.node, labels)


def repeat(t: Tracing, call: Call) -> Value:
    """Whole copies, one after the other."""
    x = t.axes(call["self"])
    times = call["repeats"] if call.op == "repeat" else call["dims"]
    new = max(0, len(times) - len(x))
    times = [1] * (len(x) - len(times)) + list(times)
    labels: dict[int, Vector] = {}
    for d, vector in enumerate(x.labels):
        if vector is not None and times[new + d] != 1:
            if not isinstance(times[new + d], int):
                return freeze_all(t, call.node)
            labels[new + d] = np.tile(vector, times[new + d])
        else:
            labels[new + d] = vector
    return t.yields(call.node, labels)


def repeat_each(t: Tracing, call: Call) -> Value:
    """Every position several times in a row; any number of these copies may go with what they meet."""
    x = t.axes(call["self"])
    times = call["repeats"]
    if call["dim"] is None or not isinstance(times, int):
        return freeze_all(t, call.node)
    dim = x.dim(call["dim"])
    labels = dict(enumerate(x.labels))
    if labels[dim] is not None:
        copies = t.labels.mint(times)
        labels[dim] = t.labels.merge([labels[dim], copies], [x.shape[dim], times])
        t.facts[call.node] = {"copies": copies}
    return t.yields(call.node, labels)


def index(t: Tracing, call: Call) -> Value:
    """Indexing by tensors. A constant list of channels picks their labels, anything else fixes them."""
    x = t.axes(call["self"])
    indices = [call["index"]] if call.op == "index_select" else list(call["indices"])
    used = [d for d, i in enumerate(indices) if i is not None]
    if call.op == "index_select":
        used, indices = [x.dim(call["dim"])], [None] * x.dim(call["dim"]) + indices
    positions = _constant_positions(t, indices[used[0]]) if len(used) == 1 else None
    labels: dict[int, Vector] = dict(enumerate(x.labels))
    if positions is not None and labels[used[0]] is not None and _is_activation(call["self"]):
        t.freeze(t.axes(indices[used[0]]), [0], f"{call.node.name}: list of channel numbers")
        labels[used[0]] = labels[used[0]][positions]  # type: ignore[index]
        t.facts[call.node] = {"source": x.labels[used[0]], "result": labels[used[0]]}
        return t.yields(call.node, labels)
    for d in used:
        t.freeze(x, [d], f"{call.node.name}: indexed by number")
        own = t.maybe(indices[d])
        t.freeze(own, range(len(own or ())), f"{call.node.name}: used as numbers")
    return t.yields(call.node, _after_indexing(t, call, x, used, indices))


def _after_indexing(
    t: Tracing, call: Call, x: Axes, used: Sequence[int], indices: Sequence[Any]
) -> dict[int, Vector]:
    """Where the dimensions not indexed end up."""
    count = max((len(t.axes(indices[d])) for d in used), default=0)
    together = list(used) == list(range(used[0], used[-1] + 1)) if used else True
    place = used[0] if used and together else 0
    rest = [v for d, v in enumerate(x.labels) if d not in used]
    return dict(enumerate([*rest[:place], *[None] * count, *rest[place:]]))


def _constant_positions(t: Tracing, node: Any) -> Ints | None:
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


def _strung(parts: Sequence[tuple[Vector, int]]) -> Vector:
    if all(vector is None for vector, _ in parts):
        return None
    return np.concatenate([np.full(n, FIXED) if v is None else v for v, n in parts])


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _two(call: Call) -> tuple[str, str]:
    names = [name for name in call.positions if name != "self"]
    return names[0], names[1]


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        [
            "permute",
            "transpose",
            "swapaxes",
            "swapdims",
            "movedim",
            "t",
            "numpy_T",
            "mT",
            "adjoint",
            "matrix_H",
        ],
        permute,
    ),
    **dict.fromkeys(["slice", "narrow"], cut),
    **dict.fromkeys(
        [
            "split",
            "chunk",
            "split_with_sizes",
            "unsafe_split",
            "unsafe_chunk",
            "unsafe_split_with_sizes",
            "tensor_split",
            "unbind",
        ],
        divide,
    ),
    **dict.fromkeys(["cat", "concat", "concatenate"], join),
    **dict.fromkeys(["pad", "constant_pad_nd"], pad),
    **dict.fromkeys(["repeat", "tile"], repeat),
    **dict.fromkeys(["index", "index_select"], index),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand": expand,
    "expand_as": expand,
    "select": select,
    "slice_scatter": write_slice,
    "stack": stack,
    "roll": roll,
    "flip": flip,
    "repeat_interleave": repeat_each,
}
