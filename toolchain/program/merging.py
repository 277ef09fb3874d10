"""Batch norms merged into the convolution or linear layer before them, in a graph to be exported.

Given:  y = conv(x, W, b);  z = batch_norm(y, gamma, beta, mean, var, eps)      y read by nothing else
Result: z = conv(x, W * s, (b - mean) * s + beta)      s = gamma / sqrt(var + eps)

Every converter does the same at its own cost, in float32; a graph that is a third shorter passes all of them
quicker. The factors are computed in float64.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from toolchain.program.axes import Call, call_of
from toolchain.values import Program

_RANKS: Final = {
    "linear": 2,
    "conv1d": 3,
    "conv2d": 4,
    "conv3d": 5,
    "conv_transpose1d": 3,
    "conv_transpose2d": 4,
    "conv_transpose3d": 5,
}
"""The rank of an output whose dimension 1 is the layer's output channels."""


def merged(program: Program) -> Program:
    """The program with its batch norms in the layers before them, which can be trained on; it is not changed.

    The merged weights and biases are parameters, under the names of those that they replace where these are
    read by nothing else.
    """
    module = GraphModule(program.module, copy.deepcopy(program.module.graph))
    known = {name for name, _ in module.named_buffers()}
    if not merge_norms(module):
        return program
    module.graph.eliminate_dead_code()
    module = GraphModule(module, module.graph)  # holds only what the graph reads
    for name, value in list(module.named_buffers()):
        if name not in known:
            _as_parameter(module, name, value)
    module.graph.lint()
    module.recompile()
    return replace(program, module=module)


def _as_parameter(module: GraphModule, name: str, value: Tensor) -> None:
    """Turn a merged buffer into a parameter, called `weight` or `bias` where nothing else is."""
    path, _, leaf = name.rpartition(".")
    owner, plain = module.get_submodule(path), leaf.rpartition("_")[2]
    chosen = leaf if hasattr(owner, plain) and getattr(owner, plain) is not None else plain
    delattr(owner, leaf)
    owner.register_parameter(chosen, nn.Parameter(value))
    for node in module.graph.find_nodes(op="get_attr", target=name):
        node.target = f"{path}.{chosen}" if path else chosen


def merge_norms(module: GraphModule) -> int:
    """Merge in place and count; tensors are replaced, never written to: they are shared with a program."""
    calls = [call_of(node) for node in module.graph.nodes]
    return sum(_merge(module, call) for call in calls if call is not None and call.op == "batch_norm")


def _merge(module: GraphModule, norm: Call) -> int:
    """1 where the norm went into its layer, else 0."""
    layer = call_of(norm["input"])
    if norm["training"] or layer is None or not _alone(layer):
        return 0
    weight, bias = _tensor(module, layer["weight"]), _tensor(module, layer["bias"])
    factors = _factors(module, norm)
    if weight is None or (bias is None and layer["bias"] is not None) or factors is None:
        return 0
    scale, shift = factors
    if bias is not None:
        shift = shift + bias.double() * scale
    merged = weight.double() * _shaped(scale, weight, layer)
    owner = str(layer["weight"].target).rpartition(".")[0]
    with module.graph.inserting_before(layer.node):
        for name, value in (("weight", merged), ("bias", shift)):
            layer.put(name, _stored(module, owner, f"{layer.node.name}_{name}", value.to(weight.dtype)))
    norm.node.replace_all_uses_with(layer.node)
    module.graph.erase_node(norm.node)
    return 1


def _alone(layer: Call) -> bool:
    """Whether it is a layer whose output has its channels in dimension 1 and a single reader."""
    value = layer.node.meta.get("val")
    return (
        layer.op in _RANKS
        and isinstance(value, Tensor)
        and value.dim() == _RANKS[layer.op]
        and len(layer.node.users) == 1
    )


def _factors(module: GraphModule, norm: Call) -> tuple[Tensor, Tensor] | None:
    """What the norm multiplies by and adds, [channels] in float64; None where the graph computes it."""
    gamma, beta, mean, variance = (
        _tensor(module, norm[name]) for name in ("weight", "bias", "running_mean", "running_var")
    )
    if mean is None or variance is None:
        return None
    if (gamma is None and norm["weight"] is not None) or (beta is None and norm["bias"] is not None):
        return None
    scale = torch.rsqrt(variance.double() + norm["eps"])
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean.double() * scale
    return scale, shift if beta is None else shift + beta.double()


def _shaped(scale: Tensor, weight: Tensor, layer: Call) -> Tensor:
    """One factor an output channel, in a shape that multiplies the weight.

    Given:  a transposed convolution of 2 groups, weight [4, 3, k, k], scale [6]
    Result: [4, 3, 1, 1]: rows 0-1 have scale[0:3], rows 2-3 scale[3:6]
    """
    if not layer.op.startswith("conv_transpose"):
        return scale.reshape(-1, *[1] * (weight.dim() - 1))
    groups = layer["groups"]
    rows = scale.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
    return rows.reshape(weight.shape[0], -1, *[1] * (weight.dim() - 2))


def _tensor(module: GraphModule, node: Any) -> Tensor | None:
    """The stored tensor that a node reads; None for what is computed or absent."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    owner, _, leaf = str(node.target).rpartition(".")
    found = getattr(module.get_submodule(owner), leaf)
    return found.detach() if isinstance(found, Tensor) else None


def _stored(module: GraphModule, owner: str, leaf: str, value: Tensor) -> Node:
    """A node that reads `value`, kept beside the tensor that it replaces."""
    module.get_submodule(owner).register_buffer(leaf, value)
    node = module.graph.get_attr(f"{owner}.{leaf}" if owner else leaf)
    node.meta = {"val": value}
    return node
