"""Operators that move elements: views, permutations, cuts, joins, pads, repeats, indexing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from toolchain.program.axes import Axes, Call, Value
from toolchain.program.labels import FIXED, Vector
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
    """Dimensions of size 1 go; the graph names them."""
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


def join(t: Tracing, call: Call) -> Value:
    """Concatenation: one dimension is strung together, the others exist together."""
    parts = [t.axes(node) for node in call.tensors()]
    parts = [p for p in parts if p.shape != (0,)]
    dim = _JOINED[call.op] if call.op in _JOINED else parts[0].dim(call["dim"] or 0)
    if len(parts[0]) <= dim or (call.op in _JOINED and len(parts[0]) < 2):
        return freeze_all(t, call.node)
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
            t.freeze(x, [dim], f"{call.place}: padded along this dimension")
            labels[dim] = None
        elif before < 0 or after < 0:
            t.freeze(x, [dim], f"{call.place}: cropped along this dimension")
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


def _strung(parts: Sequence[tuple[Vector, int]]) -> Vector:
    if all(vector is None for vector, _ in parts):
        return None
    return np.concatenate([np.full(n, FIXED) if v is None else v for v, n in parts])


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _two(call: Call) -> tuple[str, str]:
    names = [name for name in call.positions if name != "self"]
    return names[0], names[1]


_JOINED: Final = {"vstack": 0, "hstack": 1, "dstack": 2}
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
    **dict.fromkeys(["cat", "concat", "concatenate", *_JOINED], join),
    **dict.fromkeys(["pad", "constant_pad_nd"], pad),
    **dict.fromkeys(["repeat", "tile"], repeat),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand": expand,
    "expand_as": expand,
    "stack": stack,
    "roll": roll,
    "flip": flip,
    "repeat_interleave": repeat_each,
}
