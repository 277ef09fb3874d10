"""Operators that take a part of a dimension: slices, single positions, splits, and writing into a range."""

from __future__ import annotations

import operator
from typing import Any, Final

import torch
from torch.fx import Node

from toolchain.program.axes import Axes, Call, Value
from toolchain.program.tracing import Rule, Tracing, freeze_all


def select(t: Tracing, call: Call) -> Value:
    """One position of a dimension: it stays, the others may go."""
    x = t.axes(call["self"])
    dim = x.dim(call["dim"])
    vector = x.labels[dim]
    if vector is not None:
        if not isinstance(call["index"], int):
            return freeze_all(t, call.node)
        at = call["index"] % x.shape[dim]
        t.labels.freeze(vector[at : at + 1], f"{call.place}: selected by number")
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
        strided = positions.step not in (None, 1)
        if strided and not _survives_copying(call.node):
            t.freeze(x, [dim], f"{call.place}: a strided view of what is changed in place later")
        labels[dim] = labels[dim][positions]  # type: ignore[index]
    return t.yields(call.node, dict(enumerate(labels)))


def _survives_copying(view: Node) -> bool:
    """Whether a view may become a copy: of all that shares its memory, later only it is written to.

    Writing to the view itself is no harm, since the rewriting writes the copy back.
    """
    shared = sharing(view)
    order = {node: place for place, node in enumerate(view.graph.nodes)}
    return not any(
        order[user] > order[view] and is_written(node, user) and node is not view
        for node in shared
        for user in node.users
    )


def is_written(node: Node, user: Node) -> bool:
    """Whether `user` changes `node` in place."""
    target = user.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return False
    arguments = zip(target._schema.arguments, user.args, strict=False)
    return any(a is node and s.alias_info is not None and s.alias_info.is_write for s, a in arguments)


def sharing(view: Node) -> set[Node]:
    """All nodes that may share memory with the view."""
    root = view
    while _is_view(root):
        root = root.all_input_nodes[0]
    found, open_ = {root}, [root]
    while open_:
        for user in open_.pop().users:
            if user not in found and _is_view(user):
                found.add(user)
                open_.append(user)
    return found


def _is_view(node: Node) -> bool:
    if node.target is operator.getitem:
        return True
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and any(
        r.alias_info is not None for r in target._schema.returns
    )


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
        t.freeze(x, [dim], f"{call.place}: selected by number")
        labels = tuple(v for d, v in enumerate(x.labels) if d != dim)
        return tuple(Axes(shape=s, labels=labels) for s in shapes)
    parts: list[Axes] = []
    start = 0
    for shape in shapes:
        own = list(x.labels)
        if own[dim] is not None:
            own[dim] = own[dim][start : start + shape[dim]]  # type: ignore[index]
            if shape[dim] == 1:
                t.labels.freeze(own[dim], f"{call.place}: alone in its part")
                own[dim] = None
        start += shape[dim]
        parts.append(Axes(shape=shape, labels=tuple(own)))
    return tuple(parts)


RULES: Final[dict[str, Rule]] = {
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
    "select": select,
    "slice_scatter": write_slice,
}
