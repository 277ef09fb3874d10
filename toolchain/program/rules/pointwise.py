"""Operators that work element by element, with fixed statistics, or on spatial dimensions only."""

from __future__ import annotations

import re
from typing import Final

from toolchain.program.axes import Axes, Call, Value
from toolchain.program.labels import Vector
from toolchain.program.tracing import Rule, Tracing


def broadcast(t: Tracing, call: Call) -> Value:
    """Operands broadcast against each other exist together, except along dimensions of size 1."""
    operands = [t.axes(node) for node in call.tensors()]
    shape = t.shape(call.node)
    labels: dict[int, Vector] = {}
    for d, size in enumerate(shape):
        vectors = []
        for operand in operands:
            at = d - len(shape) + len(operand)
            if size != 1 and at >= 0 and operand.shape[at] == size:
                vectors.append(operand.labels[at])
        if vectors:
            labels[d] = vectors[0]
            for other in vectors[1:]:
                labels[d] = t.meet(labels[d], other, call, d)
    return t.yields(call.node, labels)


def first_only(t: Tracing, call: Call) -> Value:
    """The result is labelled as the first tensor is; other tensors only give a type or a device."""
    return t.axes(next(call.tensors()))


def batch_norm(t: Tracing, call: Call) -> Value:
    """Given: x [n, c, ...]. The parameters and statistics [c] go with the channels."""
    x = t.axes(call["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        own = t.maybe(call[name])
        if own is not None:
            t.tie(x.labels[1], own.labels[0], call)
    if t.maybe(call["running_mean"]) is None:
        others = [d for d in range(len(x)) if d != 1]
        t.restrict(call, others, x, f"{call.node.name}: statistics of the kept elements")
        t.keep_two(x, others)
    elif len(x) > 2 and any(x.labels[d] is not None for d in range(2, len(x))):
        t.freeze(x, range(2, len(x)), f"{call.place}: normalised over this dimension in training")
    several = isinstance(call.node.meta["val"], list | tuple)
    return (x, None, None) if several else x


def instance_norm(t: Tracing, call: Call) -> Value:
    """Given: x [n, c, ...]. Each channel has statistics of its own."""
    x = t.axes(call["input"])
    t.freeze(x, range(2, len(x)), f"{call.place}: normalised over this dimension")
    for name in ("weight", "bias", "running_mean", "running_var"):
        own = t.maybe(call[name])
        if own is not None:
            t.tie(x.labels[1], own.labels[0], call)
    return x


def prelu(t: Tracing, call: Call) -> Value:
    """Given: x [n, c, ...], slopes [c] or [1]."""
    x, slope = t.axes(call["self"]), t.axes(call["weight"])
    if slope.shape and slope.shape[0] > 1:
        t.tie(x.labels[1], slope.labels[0], call)
    return x


def spatial(t: Tracing, call: Call) -> Value:
    """Pooling, resizing and padding of the last dimensions: these stay, all others pass."""
    match = re.search(r"(\d)d$|(\d)d_", call.op)
    count = int(match.group(1) or match.group(2)) if match else 2
    if call.op.startswith("upsample"):
        count = len(t.axes(next(call.tensors()))) - 2
    x = t.axes(next(call.tensors()))
    rest = len(x) - count
    t.freeze(x, range(rest, len(x)), f"{call.place} ({call.op}) mixes this dimension")
    value = call.node.meta["val"]
    if isinstance(value, list | tuple):
        shapes = [t.sizes.shape(v) for v in value]
        return tuple(Axes(shape=s, labels=(*x.labels[:rest], *[None] * count)) for s in shapes)
    return t.yields(call.node, dict(enumerate(x.labels[:rest])))


def unpool(t: Tracing, call: Call) -> Value:
    """Given: x and the places of its elements in the larger image, of one shape."""
    name = next(n for n in ("self", "input") if n in call.positions)
    x, places = t.axes(call[name]), t.axes(call["indices"])
    rest = len(x) - int(call.op[len("max_unpool")])
    for axes in (x, places):
        t.freeze(axes, range(rest, len(x)), f"{call.place} ({call.op}) mixes this dimension")
    return t.yields(call.node, {d: t.tie(x.labels[d], places.labels[d], call) for d in range(rest)})


def sample(t: Tracing, call: Call) -> Value:
    """Given: x [n, c, ...], grid [n, ..., 2 or 3] of places to read at. Result: [n, c, ...]."""
    x, grid = t.axes(call["input"]), t.axes(call["grid"])
    for axes, first in ((x, 2), (grid, 1)):
        t.freeze(axes, range(first, len(axes)), f"{call.place} ({call.op}): places to read at")
    return t.yields(call.node, {0: t.tie(x.labels[0], grid.labels[0], call), 1: x.labels[1]})


def affine_grid(t: Tracing, call: Call) -> Value:
    """Given: theta [n, 2, 3] or [n, 3, 4], and a size of which only the image counts. Result: a grid."""
    theta = t.axes(call["theta"])
    t.freeze(theta, range(1, len(theta)), f"{call.place}: numbers of an affine map")
    return t.yields(call.node, {0: theta.labels[0]})


def triangle(t: Tracing, call: Call) -> Value:
    """The last two dimensions are told apart by their positions."""
    x = t.axes(call["self"])
    t.freeze(x, range(len(x) - 2, len(x)), f"{call.place} ({call.op}): told apart by position")
    return x


def parts(t: Tracing, call: Call) -> Value:
    """Complex numbers as pairs of real ones in a last dimension, and back."""
    x = t.axes(call["self"])
    if call.op == "view_as_real":
        return t.yields(call.node, dict(enumerate(x.labels)))
    t.freeze(x, [len(x) - 1], f"{call.place} ({call.op}): real and imaginary parts")
    return t.yields(call.node, dict(enumerate(x.labels[:-1])))


def glu(t: Tracing, call: Call) -> Value:
    """Given: x = [a, b] along `dim`. Result: a * sigmoid(b); both halves go together."""
    x = t.axes(call["self"])
    dim = x.dim(call["dim"])
    labels = list(x.labels)
    both = labels[dim]
    if both is not None:
        half = x.shape[dim] // 2
        labels[dim] = t.tie(both[:half], both[half:], call)
    return t.yields(call.node, dict(enumerate(labels)))


_SAME: Final = [
    "relu6",
    "hardtanh",
    "silu",
    "mish",
    "celu",
    "elu",
    "selu",
    "leaky_relu",
    "gelu",
    "softplus",
    "hardswish",
    "hardsigmoid",
    "logsigmoid",
    "threshold",
    "rrelu",
    "softsign",
    "tanhshrink",
    "hardshrink",
    "softshrink",
    "log_sigmoid",
    "clamp",
    "clip",
    "where",
    "masked_fill",
    "add",
    "sub",
    "mul",
    "div",
    "rsub",
    "addcmul",
    "addcdiv",
    "lerp",
    "copy",
    "maximum",
    "minimum",
    "pow",
    "sqrt",
    "rsqrt",
    "square",
    "fill",
    "zero",
    "nan_to_num",
    "fake_quantize",
    "true_divide",
    "floor_divide",
    "remainder",
    "ne",
    "eq",
    "gt",
    "lt",
    "ge",
    "le",
    "logical_not",
    "bitwise_not",
    "expand_as_same",
    "sign",
    "abs",
    "neg",
    "exp",
    "clamp_min",
    "clamp_max",
    "result_type",
    "real",
    "imag",
    "conj",
    "resolve_conj",
    "complex",
    "polar",
]
_FIRST: Final = [
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "feature_alpha_dropout",
    "native_dropout",
    "contiguous",
    "clone",
    "to",
    "_to_copy",
    "type_as",
    "detach",
    "alias",
    "lift_fresh_copy",
    "lift_fresh",
    "float",
    "double",
    "half",
    "requires_grad",
    "pin_memory",
    "bernoulli",
    "dropout2d",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "new_like",
]
_SPATIAL: Final = [
    *(f"{p}{k}_pool{n}d" for n in (1, 2, 3) for p in ("", "adaptive_", "_adaptive_") for k in ("avg", "max")),
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
    *(f"{k}_pad{n}d" for n in (1, 2, 3) for k in ("reflection", "replication", "circular")),
    *(
        f"upsample_{k}"
        for k in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d")
    ),
    *(f"upsample_{k}" for k in ("bicubic2d", "nearest_exact1d", "nearest_exact2d", "nearest_exact3d")),
    *(f"_upsample_{k}" for k in ("nearest_exact1d", "nearest_exact2d", "bilinear2d_aa", "bicubic2d_aa")),
]
RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_SAME, broadcast),
    **dict.fromkeys(_FIRST, first_only),
    **dict.fromkeys(_SPATIAL, spatial),
    "batch_norm": batch_norm,
    "cudnn_batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "native_batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "prelu": prelu,
    "_prelu_kernel": broadcast,
    "glu": glu,
    **dict.fromkeys(["max_unpool2d", "max_unpool3d"], unpool),
    **dict.fromkeys(["grid_sampler", "grid_sampler_2d", "grid_sampler_3d"], sample),
    "affine_grid_generator": affine_grid,
    **dict.fromkeys(["triu", "tril"], triangle),
    **dict.fromkeys(["view_as_real", "view_as_complex"], parts),
}
