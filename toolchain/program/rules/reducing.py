"""Operators that compute one number from many: means, norms, softmax.

Over dimensions of which nothing may be removed they are harmless. Over removable ones the pruned network
computes with what is left, which is another function than the original's: such groups carry a note, and the
masked original restricts its statistics in the same way. What cannot be restricted so is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import getitem
from typing import Any, Final

from toolchain.program.axes import Axes, Call, Value
from toolchain.program.labels import Vector
from toolchain.program.tracing import Rule, Tracing


def reduction(t: Tracing, call: Call) -> Value:
    """Sums, means, variances, extremes and norms over some dimensions."""
    x = t.axes(call["self"])
    dims = dims_of(call, len(x))
    t.restrict(call, dims, x, f"{call.node.name} ({call.op}): computed over the kept channels")
    if call.op.startswith(("var", "std")):
        t.keep_two(x, dims)
    return _reduced(t, call, x, dims)


def extreme(t: Tracing, call: Call) -> Value:
    """The largest or smallest value, with its position: where that is read, the dimension stays."""
    value = call.node.meta["val"]
    several = isinstance(value, list | tuple) and call.op in ("max", "min")
    read = several and any(user.target is not getitem or user.args[1] == 1 for user in call.node.users)
    return strict_reduction(t, call) if read else reduction(t, call)


def strict_reduction(t: Tracing, call: Call) -> Value:
    """Reductions that tell positions apart, such as argmax: the dimension stays."""
    x = t.axes(call["self"])
    dims = dims_of(call, len(x))
    t.freeze(x, dims, f"{call.place} ({call.op}): over this dimension")
    return _reduced(t, call, x, dims)


def along(t: Tracing, call: Call) -> Value:
    """Operators along one dimension that stays: cumulative sums, sorting, Fourier transforms."""
    x = t.axes(next(call.tensors()))
    dims = dims_of(call, len(x))
    t.freeze(x, dims, f"{call.place} ({call.op}): over this dimension")
    labels = tuple(None if d in dims else v for d, v in enumerate(x.labels))
    value = call.node.meta["val"]
    if isinstance(value, list | tuple):
        return tuple(Axes(shape=t.sizes.shape(v), labels=labels) for v in value)
    return t.yields(call.node, dict(enumerate(labels)))


def softmax(t: Tracing, call: Call) -> Value:
    """Positive shares of one: over a removable dimension, those of the kept positions."""
    x = t.axes(next(call.tensors()))
    t.restrict(call, dims_of(call, len(x)), x, f"{call.node.name} ({call.op}): shares of the kept channels")
    return x


def layer_norm(t: Tracing, call: Call) -> Value:
    """Given: x [..., *normalized_shape]. Statistics over the last dimensions."""
    x = t.axes(call["input"])
    shape = call["normalized_shape"]
    dims = range(len(x) - len(shape), len(x))
    for name in ("weight", "bias"):
        own = t.maybe(call[name])
        if own is not None:
            for place, d in enumerate(dims):
                t.tie(x.labels[d], own.labels[place], call)
    if sum(x.labels[d] is not None for d in dims) > 1:
        t.freeze(x, dims, f"{call.place}: normalised over several removable dimensions")
    t.restrict(call, dims, x, f"{call.node.name} ({call.op}): statistics of the kept channels")
    several = isinstance(call.node.meta["val"], list | tuple)
    return (x, None, None) if several else x


def group_norm(t: Tracing, call: Call) -> Value:
    """Given: x [n, groups * k, ...]. Whole groups go exactly, an index in all groups with a note."""
    x = t.axes(call["input"])
    groups = call["num_groups"] or call["group"]
    for name in ("weight", "bias"):
        own = t.maybe(call[name])
        if own is not None:
            t.tie(x.labels[1], own.labels[0], call)
    t.freeze(x, range(2, len(x)), f"{call.place}: normalised over this dimension")
    runs = [groups, x.shape[1] // groups]
    parts = t.labels.split(x.labels[1], runs, f"{call.place}: {groups} groups")
    t.facts[call.node] = {"groups": parts[0], "inner": parts[1]}
    if parts[1] is not None:
        t.restricted[call.node] = (1,)
        t.notes.append((parts[1], f"{call.node.name} ({call.op}): statistics of the kept channels"))
    several = isinstance(call.node.meta["val"], list | tuple)
    return (x, None, None) if several else x


def dims_of(call: Call, rank: int) -> tuple[int, ...]:
    """The dimensions that the operator works over; all where it names none."""
    given: Any = call["dim"]
    if given is None:
        given = call["dims"]
    if given is None or given == []:
        return tuple(range(rank))
    several = given if isinstance(given, list | tuple) else [given]
    return tuple(d % rank for d in several) if rank else ()


def _reduced(t: Tracing, call: Call, x: Axes, dims: Sequence[int]) -> Value:
    labels: list[Vector] = [None if d in dims else v for d, v in enumerate(x.labels)]
    if not call["keepdim"]:
        labels = [v for d, v in enumerate(labels) if d not in dims]
    value = call.node.meta["val"]
    if isinstance(value, list | tuple):
        return tuple(Axes(shape=t.sizes.shape(v), labels=tuple(labels)) for v in value)
    return t.yields(call.node, dict(enumerate(labels)))


_FOURIER: Final = [f"fft_{i}{k}fft{n}" for i in ("", "i") for k in ("", "r", "h") for n in ("", "2", "n")]
RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        [
            "mean",
            "sum",
            "var",
            "std",
            "var_mean",
            "std_mean",
            "amax",
            "amin",
            "norm",
            "linalg_vector_norm",
            "nansum",
            "prod",
            "logsumexp",
            "any",
            "all",
            "count_nonzero",
        ],
        reduction,
    ),
    **dict.fromkeys(["max", "min", "aminmax"], extreme),
    **dict.fromkeys(["argmax", "argmin", "median", "nanmedian", "mode", "kthvalue"], strict_reduction),
    **dict.fromkeys(["softmax", "log_softmax", "_softmax", "_log_softmax"], softmax),
    **dict.fromkeys(
        ["cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "sort", "argsort", "topk", *_FOURIER], along
    ),
    **dict.fromkeys(["layer_norm", "native_layer_norm", "rms_norm"], layer_norm),
    **dict.fromkeys(["group_norm", "native_group_norm"], group_norm),
}
