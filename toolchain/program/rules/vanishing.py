"""Whether what is removed of a tensor is zero in the masked original, so that a sum over it loses nothing.

The channels of a plain layer are, as their weights and biases are zero. They stay so through views, ReLU,
scaling and dropout, and no longer after a sigmoid or an added constant. What is not known to be zero is
taken as not zero.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from operator import getitem
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import Node

from toolchain.program.axes import Axes, Call, attribute, call_of
from toolchain.program.rules.parting import is_written, sharing
from toolchain.program.rules.pointwise import RULES as POINTWISE
from toolchain.program.rules.pointwise import broadcast, first_only
from toolchain.program.tracing import Tracing

DEPTH: Final = 100
"""Operators that are followed back at most."""
_MOVES: Final = frozenset(
    [
        "view",
        "reshape",
        "_unsafe_view",
        "flatten",
        "unflatten",
        "permute",
        "transpose",
        "t",
        "unsqueeze",
        "squeeze",
        "expand",
        "slice",
        "select",
        "narrow",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "cat",
        "stack",
        "roll",
        "flip",
        "channel_shuffle",
        "glu",
        "mean",
        "sum",
        "amax",
        "amin",
        "linalg_vector_norm",
        *(f"{k}_pool{n}d" for k in ("avg", "adaptive_avg", "max") for n in (1, 2, 3)),
    ]
)
"""Operators that move elements, or make a zero of zeros."""
_LAYERS: Final = (
    "linear",
    "convolution",
    "_convolution",
    *(f"conv{k}{n}d" for k in ("", "_transpose") for n in (1, 2, 3)),
)
_PRODUCTS: Final = ("matmul", "mm", "bmm", "mv", "einsum", "tensordot")
_PROBES: Final = (-3.0, -0.5, 0.25, 2.0)


def vanishes(t: Tracing, node: Node, dim: int, depth: int = 0) -> bool:
    """Whether the elements of `node` that go along `dim` are zero in the masked original."""
    known = t.vanishing.get((node, dim))
    if known is None:
        known = depth < DEPTH and not _spoiled(t, node) and _vanishes(t, node, dim, depth + 1)
        t.vanishing[node, dim] = known
    return known


def _vanishes(t: Tracing, node: Node, dim: int, depth: int) -> bool:
    if node.op == "get_attr":
        return bool(attribute(t.module, str(node.target)).dtype.is_floating_point)
    if node.target is getitem:
        return _moved(t, node, [node.args[0]], dim, depth)
    call = call_of(node)
    if call is None or not isinstance(t.values.get(node), Axes):
        return False
    if call.op in _LAYERS:
        return _layer(t, call, dim, depth)
    if call.op == "scaled_dot_product_attention":
        at = dim - len(t.axes(node)) + len(t.axes(call["value"]))
        same = at >= 0 and t.axes(call["value"]).shape[at] == t.axes(node).shape[dim]
        return same and vanishes(t, call["value"], at, depth)
    if call.op in _PRODUCTS:
        held = {n: _dims(t, n, node, dim) for n in call.tensors()}
        return any(dims and all(vanishes(t, n, d, depth) for d in dims) for n, dims in held.items())
    if call.op in _MOVES:
        return _moved(t, node, list(call.tensors()), dim, depth)
    if call.op in ("pad", "constant_pad_nd"):
        zeros = not call["value"] and call["mode"] in (None, "constant")
        return zeros and _moved(t, node, [call["self"]], dim, depth)
    if "norm" in call.op or "softmax" in call.op:
        return _normalised(t, call, dim)
    return _pointwise(t, call, dim, depth)


def _layer(t: Tracing, call: Call, dim: int, depth: int) -> bool:
    """Given: conv(x, weight, bias). The masked original zeroes weights, the computed ones too."""
    bias, rank = call["bias"], len(t.axes(call.node))
    if dim == (rank - 1 if call.op == "linear" else rank - len(t.axes(call["weight"])) + 1):
        return bias is None or vanishes(t, bias, len(t.axes(bias)) - 1, depth)
    return call.op == "linear" and bias is None and vanishes(t, call["input"], dim, depth)


def _normalised(t: Tracing, call: Call, dim: int) -> bool:
    """Restricted, it has zeros where something goes; else the scales and shifts that go are zero."""
    if dim in t.restricted.get(call.node, ()):
        return True
    weight, rank = call["weight"], len(t.axes(call.node))
    layer = "normalized_shape" in call.positions
    own = dim >= rank - len(call["normalized_shape"]) if layer else dim == 1
    fixed = [v is None or (isinstance(v, Node) and v.op == "get_attr") for v in (weight, call["bias"])]
    return own and weight is not None and all(fixed)


def _moved(t: Tracing, node: Node, sources: list[Any], dim: int, depth: int) -> bool:
    """All sources have to vanish: along the same dimension where it is known, else along each that may go."""
    found = False
    for source in sources:
        value = t.values[source]
        if isinstance(value, tuple):  # getitem of a split: of that operator's own sources
            call = call_of(source)
            return call is not None and call.op in _MOVES and _moved(t, node, [*call.tensors()], dim, depth)
        dims = _dims(t, source, node, dim) or [
            d for d, v in enumerate(t.axes(source).labels) if v is not None
        ]
        found |= bool(dims)
        if not all(vanishes(t, source, d, depth) for d in dims):
            return False
    return found


def _dims(t: Tracing, source: Node, node: Node, dim: int) -> list[int]:
    """The dimensions of `source` that carry the very labels of dimension `dim` of `node`."""
    vector = t.axes(node).labels[dim]
    return [d for d, v in enumerate(t.axes(source).labels) if v is vector and v is not None]


def _pointwise(t: Tracing, call: Call, dim: int, depth: int) -> bool:
    """Try the operator on the operands that are zero there, with any numbers for the others."""
    rank, zero = len(t.axes(call.node)), set()
    for operand in call.tensors():
        at = dim - rank + len(t.axes(operand))
        own = t.axes(operand).shape[at] == t.axes(call.node).shape[dim] if at >= 0 else False
        if own and vanishes(t, operand, at, depth):
            zero.add(operand)
    return bool(zero) and _gives_zero(call, zero)


def _gives_zero(call: Call, zero: Collection[Node]) -> bool:
    """Whether an operator that works element by element makes zeros of zeros."""
    own = POINTWISE.get(call.op)
    tagged = torch.Tag.pointwise in call.node.target.tags  # type: ignore[union-attr]
    if not (tagged or own in (broadcast, first_only)) or call.op.startswith("empty"):
        return False
    if any(not isinstance(n.meta.get("val"), Tensor) for n in call.node.all_input_nodes):
        return False
    others = [n for n in call.node.all_input_nodes if n not in zero]
    grid = torch.tensor(list(product(_PROBES, repeat=len(others))))
    given = {n: grid[:, i].sign().clamp(min=0) if _is_flag(n) else grid[:, i] for i, n in enumerate(others)}
    given |= {n: torch.zeros(len(grid)) for n in zero}
    given = {n: x.to(n.meta["val"].dtype) for n, x in given.items()}
    args = torch.fx.node.map_arg(call.node.args, lambda n: given[n])
    kwargs = torch.fx.node.map_arg(call.node.kwargs, lambda n: given[n])
    result = call.node.target(*args, **kwargs)  # type: ignore[operator]
    return isinstance(result, Tensor) and bool((result == 0).all())


def _is_flag(node: Node) -> bool:
    return bool(node.meta["val"].dtype is torch.bool)


def _spoiled(t: Tracing, node: Node) -> bool:
    """Whether something else than zeros may be written into it, or into what shares its memory.

    Not by a loose addition: nobody reads afterwards what it writes to.
    """
    for view in sharing(node):
        for user in view.users:
            if is_written(view, user) and user is not node and user.name not in t.loose:
                call = call_of(user)
                if call is None or not _gives_zero(call, {view}):
                    return True
    return False
