"""What a runtime executes: the operators of a program with their arithmetic and memory traffic, one sample.

The latency models of devices that are not at hand are sums over these. Batch norm counts as part of the
convolution or matrix product before it, and so do activations that runtimes fuse (`FUSED`): they cost nothing
of their own there. Views move nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, cast

from torch import Tensor
from torch.fx import Node

from toolchain.program.axes import Call, call_of
from toolchain.values import Program

Kind = Literal[
    "dense", "pointwise", "depthwise", "grouped", "matrix", "product", "softmax", "norm", "activation",
    "elementwise", "pool", "move", "other",
]  # fmt: skip
KINDS: Final[Mapping[str, str]] = {
    "dense": "k x k convolutions",
    "pointwise": "1 x 1 convolutions",
    "depthwise": "depthwise convolutions",
    "grouped": "grouped convolutions",
    "matrix": "linear layers",
    "product": "products of activations (attention)",
    "softmax": "softmax",
    "norm": "layer or group norms",
    "activation": "activation functions that are not fused",
    "elementwise": "sums and products of elements",
    "pool": "pooling",
    "move": "data movement",
    "other": "operators of other kinds",
}
_CONVOLUTIONS: Final = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution")
_TRANSPOSED: Final = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_MATRICES: Final = ("linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "einsum")
_ATTENTION: Final = "scaled_dot_product_attention"
FUSED: Final = ("relu", "relu6", "hardtanh", "clamp", "clamp_min")
CLIPS: Final = ("relu6", "hardtanh", "clamp")
_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(("softmax", "_softmax", "log_softmax"), "softmax"),
    **dict.fromkeys(
        ("layer_norm", "native_layer_norm", "group_norm", "instance_norm", "rms_norm", "linalg_vector_norm"),
        "norm",
    ),
    **dict.fromkeys(
        (*FUSED, "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "tanh", "elu", "leaky_relu", "prelu",
         "mish", "exp", "erf", "log", "sqrt", "rsqrt", "pow"),
        "activation",
    ),
    **dict.fromkeys(
        ("add", "sub", "mul", "div", "batch_norm", "maximum", "minimum", "rsub", "neg", "abs", "where",
         "masked_fill", "addcmul"),
        "elementwise",
    ),
    **dict.fromkeys(
        ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
         "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "mean",
         "sum", "amax", "amin", "max", "var", "argmax", "max_pool2d_with_indices"),
        "pool",
    ),
    **dict.fromkeys(
        ("cat", "stack", "transpose", "permute", "clone", "contiguous", "slice", "pad", "constant_pad_nd",
         "roll", "index", "index_select", "embedding", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle",
         "upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d", "copy", "repeat", "flip", "split",
         "split_with_sizes", "chunk", "select", "unfold", "im2col", "col2im", "interpolate", "cumsum",
         "gather", "slice_scatter", "_to_copy"),
        "move",
    ),
}  # fmt: skip
_FREE: Final = frozenset(
    ("view", "reshape", "flatten", "unsqueeze", "squeeze", "expand", "expand_as", "dropout", "dropout1d",
     "feature_dropout", "dropout2d", "alias", "detach", "unbind", "unflatten", "_unsafe_view", "sym_size",
     "arange", "zeros", "ones", "full", "lift_fresh_copy", "t", "to", "type_as", "eq", "scalar_tensor",
     "new_zeros", "zeros_like", "ones_like", "identity", "_assert_tensor_metadata", "view_as", "numpy_T")
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One kernel call. Counts are elements of one sample; `macs` are multiply-accumulates.

    `layer` names the weight where there is one, else the graph's node. `inputs` are activations read,
    `outputs` activations written, `weights` parameters read. `rows` is the number of output positions,
    `operands` the number of activations read: a concatenation copies each on its own.
    """

    layer: str
    op: str
    kind: Kind
    macs: int = 0
    inputs: int = 0
    outputs: int = 0
    weights: int = 0
    in_channels: int = 1
    out_channels: int = 1
    groups: int = 1
    kernel: int = 1
    stride: int = 1
    rows: int = 1
    operands: int = 1


def operators(program: Program, *, clips: bool = False) -> tuple[Operator, ...]:
    """Every operator that a runtime would execute, in graph order; batch 1. `clips`: these always count."""
    weights: set[Node] = set()
    found: list[Operator] = []
    for node in program.module.graph.nodes:
        inner = node.all_input_nodes
        if node.op == "get_attr" or (inner and all(n in weights for n in inner)):
            weights.add(node)
            continue
        call = call_of(node)
        operator = None if call is None else _operator(call, weights, clips)
        if operator is not None:
            found.append(operator)
    return tuple(found)


def _operator(call: Call, weights: set[Node], clips: bool) -> Operator | None:
    value = call.node.meta.get("val")
    if call.op in _CONVOLUTIONS or call.op in _TRANSPOSED:
        return _convolution(call)
    if call.op in _MATRICES:
        return _matrix(call, weights)
    if call.op == _ATTENTION:
        return _attention(call)
    if call.op in _FREE or value is None or (_is_fused(call) and not (clips and call.op in CLIPS)):
        return None
    tensors = value if isinstance(value, list | tuple) else (value,)
    outputs = sum(_elements(t) for t in tensors if isinstance(t, Tensor))
    activations = [_elements(t.meta["val"]) for t in call.tensors() if t not in weights]
    return Operator(
        layer=call.node.name,
        op=call.op,
        kind=_KINDS.get(call.op, "other"),
        inputs=sum(activations),
        outputs=outputs,
        rows=outputs,
        operands=len(activations),
    )


def _convolution(call: Call) -> Operator:
    weight = call["weight"]
    shape, result, source = _shape(weight), _shape(call.node), _shape(call["input"])
    transposed = call.op in _TRANSPOSED or bool(call["transposed"])
    groups, kernel = int(call["groups"]), prod(shape[2:])
    spatial = len(shape) - 2
    in_channels = shape[0] if transposed else shape[1] * groups
    out_channels = shape[1] * groups if transposed else shape[0]
    kind: Kind = "pointwise" if kernel == 1 else "dense"
    if groups > 1:
        kind = "depthwise" if groups == in_channels else "grouped"
    rows = prod(result[-spatial:])
    positions = prod(source[-spatial:]) if transposed else rows
    stride = call["stride"]
    return Operator(
        layer=_name(weight, call.node),
        op="conv_transpose" if transposed else "conv",
        kind=kind,
        macs=positions * prod(shape),
        inputs=prod(source),
        outputs=prod(result),
        weights=prod(shape),
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        kernel=kernel,
        stride=max(stride) if isinstance(stride, list | tuple) else int(stride),
        rows=rows,
    )


def _matrix(call: Call, constants: set[Node]) -> Operator:
    """A product with weights is "matrix", one of two activations is "product"."""
    operands = [t for t in call.tensors() if len(_shape(t)) > 1] or list(call.tensors())
    if call.op == "linear":
        operands = [call["input"], call["weight"]]
    result = _shape(call.node)
    weights = [t for t in operands if t in constants]
    if call.op == "addmm":
        operands = [t for t in (call["mat1"], call["mat2"]) if isinstance(t, Node)]
        weights = [t for t in operands if t in constants]
    inner = _shape(operands[0])[-1]
    columns = result[-1] if result else 1
    known = sum(prod(_shape(t)) for t in weights)
    return Operator(
        layer=_name(weights[0], call.node) if weights else call.node.name,
        op="linear" if weights else "matmul",
        kind="matrix" if weights else "product",
        macs=prod(result) * inner,
        inputs=sum(prod(_shape(t)) for t in operands if t not in constants),
        outputs=prod(result),
        weights=known,
        in_channels=inner,
        out_channels=columns,
        rows=prod(result) // max(columns, 1),
    )


def _attention(call: Call) -> Operator:
    """softmax(q k^T) v as one operator; the softmax is counted in `rows`: queries x keys x heads."""
    query, key, value = (_shape(call[name]) for name in ("query", "key", "value"))
    scores = prod(query[:-1]) * key[-2]
    return Operator(
        layer=call.node.name,
        op=_ATTENTION,
        kind="product",
        macs=scores * (query[-1] + value[-1]),
        inputs=prod(query) + prod(key) + prod(value),
        outputs=prod(_shape(call.node)),
        in_channels=query[-1],
        out_channels=value[-1],
        rows=scores,
    )


def _is_fused(call: Call) -> bool:
    """Batch norm after a convolution; an activation that runtimes fold into what computes its input."""
    if call.op not in (*FUSED, "batch_norm"):
        return False
    source = next(call.tensors(), None)
    before = call_of(source) if source is not None else None
    if before is None or len(cast(Node, source).users) > 1:
        return False
    weighted = before.op in (*_CONVOLUTIONS, *_TRANSPOSED, *_MATRICES)
    if call.op == "batch_norm":
        return weighted
    return weighted or before.op in ("batch_norm", "add", "mul")


def _name(weight: Node, fallback: Node) -> str:
    inner: Any = weight
    while isinstance(inner, Node) and inner.op == "call_function" and inner.all_input_nodes:
        inner = inner.all_input_nodes[0]
    return str(inner.target) if inner.op == "get_attr" else fallback.name


def _elements(value: Any) -> int:
    return prod(_numbers(value.shape)) if isinstance(value, Tensor) else 0


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(_numbers(node.meta["val"].shape))


def _numbers(shape: Any) -> Iterator[int]:
    """Sizes with a batch of one."""
    for size in shape:
        if isinstance(size, int):
            yield size
        else:
            expression = size.node.expr
            yield int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))
