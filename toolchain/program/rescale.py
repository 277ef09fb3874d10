"""Making up for removed inputs: the weight inference rule of dropout, applied to a cut network.

A unit of a layer sums over its inputs. When k of n inputs stay, the weights of those that stay are multiplied
by n / k, so that the sum is what it was on average over which inputs stay. The rule is that of dropout
(Srivastava et al., JMLR 15, 2014, section 10: weights at test time are those of training times the share p of
units present) read the other way round, as Martineau applies it when filters are removed for good ("Reduction
des couches convolutives dans les reseaux profonds": fully connected layers only).

Given:  y[o] = b[o] + sum_i w[o, i] x[i]              inputs i of several groups g (a concatenation)
Result: y[o] = b[o] + sum_i w[o, i] x[i] n_g / k_g    over the inputs that stay; several factors where input i
                                                      belongs to several groups (head, index in the head)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain.program.axes import Call, call_of
from toolchain.program.slices import parameter, positions
from toolchain.values import Channels, Program


@dataclass(frozen=True, kw_only=True)
class Rescaled:
    """The program, the weights that were multiplied, and the nodes that lost inputs without a rule."""

    program: Program
    weights: tuple[str, ...]
    left: tuple[str, ...]


def rescale(
    original: Program,
    cut: Program,
    channels: Channels,
    keep: Mapping[str, tuple[int, ...]],
    which: Literal["linear", "all"] = "linear",
) -> Rescaled:
    """A copy of `cut` whose layers make up for their removed inputs; biases stay.

    Not defined, and left as they are: recurrent layers, products of two activations (attention), weights that
    the graph computes (weight norm), weights that are also used otherwise (an embedding shared with the
    head). A depthwise convolution has one input for each output and loses none.

    Args:
        original: what was analysed.
        cut: `apply(original, channels, keep)`, perhaps with whole blocks dropped.
        channels: what `analyse(original)` gave.
        keep: the units that stayed, by group.
        which: fully connected layers only, or convolutions too.
    """
    module = copy.deepcopy(cut.module)
    changed = replace(cut, module=module)
    known = _first_names(original.module)
    done: list[str] = []
    left: list[str] = []
    for name, uses in _uses(module).items():
        layers = [use for use in uses if use.dim is not None and (which == "all" or use.linear)]
        dim = layers[0].dim if layers else None
        factors = None if dim is None else _factors(original, channels, keep, known[name], dim)
        if factors is None:
            continue
        if any(use.dim != dim for use in uses):
            left += [use.node for use in layers]
            continue
        weight = parameter(changed, name)
        with torch.no_grad():
            weight.mul_(factors.to(weight).view([-1 if d == dim else 1 for d in range(weight.dim())]))
        done.append(name)
    left += _without_rule(original.module, module)
    return Rescaled(program=changed, weights=tuple(done), left=tuple(dict.fromkeys(left)))


@dataclass(frozen=True, kw_only=True)
class _Use:
    """How a node uses a parameter: along `dim` lie the inputs of the layer; None where it is no layer."""

    node: str
    dim: int | None
    linear: bool


def _uses(module: GraphModule) -> dict[str, list[_Use]]:
    """The uses of every tensor, under the first of its names in the graph."""
    names = _first_names(module)
    found: dict[str, list[_Use]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            found.setdefault(names[str(node.target)], []).extend(_uses_of(node))
    return found


def _first_names(module: GraphModule) -> dict[str, str]:
    """Every name that the graph reads -> the first one of the same tensor."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            value: object = module
            for part in name.split("."):
                value = getattr(value, part)
            names[name] = first.setdefault(id(value), name)
    return names


def _uses_of(node: Node) -> Iterator[_Use]:
    """The uses of a parameter, or of a matrix and its transpose."""
    for user in node.users:
        call = call_of(user)
        if call is not None and _turns(call):
            for use in _uses_of(user):
                yield replace(use, dim=None if use.dim is None else 1 - use.dim)
        else:
            linear = call is not None and not call.op.startswith("conv")
            yield _Use(node=user.name, dim=None if call is None else _input_dim(call, node), linear=linear)


def _turns(call: Call) -> bool:
    """A transposed matrix."""
    return call.op in ("t", "transpose") and len(call.node.meta["val"].shape) == 2


def _input_dim(call: Call, weight: Node) -> int | None:
    """The dimension of the weight along which the layer's inputs lie."""
    if call.op.startswith("conv") and call["weight"] is weight:
        return 0 if "transpose" in call.op or call["transposed"] else 1
    if call.op == "linear" and call["weight"] is weight:
        return 1
    second = call["mat2"] if call["mat2"] is not None else call["other"]
    if call.op in ("addmm", "mm", "matmul") and second is weight and len(weight.meta["val"].shape) == 2:
        return 0
    return None


def _factors(
    original: Program, channels: Channels, keep: Mapping[str, tuple[int, ...]], name: str, dim: int
) -> Tensor | None:
    """Factors n / k of the positions that stay along a dimension: [positions]; None where none is gone."""
    factors = torch.ones(parameter(original, name).shape[dim], dtype=torch.float64)
    stays = torch.ones(len(factors), dtype=torch.bool)
    for group in channels.all:
        units = keep.get(group.name, range(group.size))
        if len(units) == group.size:
            continue
        gone = sorted(set(range(group.size)) - set(units))
        for member in group.members:
            if (member.parameter, member.dim) == (name, dim):
                factors[positions(member, range(group.size))] *= group.size / len(units)
                stays[positions(member, gone)] = False
    return None if bool(stays.all()) else factors[stays]


def _without_rule(before: GraphModule, after: GraphModule) -> Iterator[str]:
    """Nodes that sum over fewer positions than before, without a weight that could make up for it."""
    known = {node.name: node for node in before.graph.nodes}
    for node in after.graph.nodes:
        call = call_of(node)
        old = call_of(known[node.name]) if node.name in known else None
        if call is not None and old is not None and old.op == call.op and _summed(call) != _summed(old):
            yield node.name


def _summed(call: Call) -> str:
    """The length of the sum of an operator that no rule covers; empty for all others."""
    if call.op in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        return _length(call["input"], -1)
    if call.op == "scaled_dot_product_attention":
        return _length(call["query"], -1)
    if call.op in ("bmm", "matmul", "mm") and not _is_parameter(call["mat2"] or call["other"]):
        return _length(call["self"], -1)
    weight = call["weight"]
    if call.op.startswith(("conv", "linear")) and isinstance(weight, Node) and not _is_parameter(weight):
        dim = 0 if "transpose" in call.op or call["transposed"] else 1
        return _length(weight, dim)
    return ""


def _is_parameter(node: object) -> bool:
    """A parameter, or a transposed one."""
    if not isinstance(node, Node):
        return False
    call = call_of(node)
    return node.op == "get_attr" or (call is not None and _turns(call) and _is_parameter(node.args[0]))


def _length(node: Node, dim: int) -> str:
    return str(node.meta["val"].shape[dim])
