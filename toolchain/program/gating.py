"""Where gates act: factors on the parameters of a program, so that its graph stays as it is.

A gate belongs to a unit of a channel group, or to a residual block. At 0 it does what removing does, at 1
nothing; in between it is part of the weights afterwards. A unit's gate multiplies the weights that listen to
the unit (dimensions that a convolution or matrix product sums over), which is the same as multiplying its
feature map before each of them. Where nothing listens, as to the inner width of queries and keys, all of the
unit's parameters are multiplied. A block's gate multiplies the last scale and shift of its branch.

Where an addition is loose, its channels are listened to whichever branch has them: the gates of a branch
multiply the last scale and shift of that branch.

Operators that compute statistics over channels (a layer norm) see closed channels until they are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain.program.axes import Axes, Call, call_of
from toolchain.program.channels import Analysis, examine
from toolchain.program.masking import divisors
from toolchain.values import Block, Group, Program

_CONVOLUTIONS: Final = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution")
_TRANSPOSED: Final = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_MATRICES: Final = ("addmm", "mm", "matmul")
_PRODUCTS: Final = ("matmul", "mm", "bmm", "baddbmm", "scaled_dot_product_attention")
_NORMS: Final = ("batch_norm", "layer_norm", "group_norm", "instance_norm")
_HOMOGENEOUS: Final = (
    *("relu", "leaky_relu", "prelu", "dropout", "feature_dropout", "clone", "contiguous", "alias", "detach"),
    *("view", "reshape", "permute", "transpose", "flatten", "unflatten", "squeeze", "unsqueeze", "roll"),
    *("slice", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"),
)
"""Operators of one tensor that a positive factor passes through."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A parameter dimension that gates multiply: `owner[i]` is the gate of position i, -1 for none [size].

    `dim` None: one gate multiplies the whole parameter.
    """

    parameter: str
    dim: int | None
    owner: Tensor


@dataclass(frozen=True, kw_only=True)
class Site:
    """The gates of a group (one a unit, at least `minimum` always open) or of a block (a single one)."""

    name: str
    size: int
    minimum: int
    factors: tuple[Factor, ...]


def group_sites(program: Program) -> tuple[Site, ...]:
    """One site for every group of the program's channel analysis, called like it, in order."""
    return sites_of(program, examine(program))


def sites_of(program: Program, analysis: Analysis) -> tuple[Site, ...]:
    """One site for every group of this analysis of the program, in order."""
    listening, known = _roles(program.module)
    strict, ends = _multiplied(analysis), _ends(analysis)
    joining = {name for g in analysis.channels.merged for units in g.sources for name, _ in units}
    divide = divisors(analysis.tracing)
    dividing = {n for n, axes in analysis.tracing.parameters.items() if any(axes is d for d in divide)}
    parameters = {name for name, _ in program.module.named_parameters(remove_duplicate=False)}

    def site(number: int, group: Group) -> Site:
        owned = [m for m in group.members if m.parameter in parameters and m.parameter not in dividing]
        heard = [m for m in owned if (m.parameter, m.dim) in listening]
        plain = number not in strict and all(m.parameter in known for m in owned)
        if group.name in joining:
            heard, plain = [m for m in owned if m.parameter in ends], True
        factors = [
            Factor(
                parameter=m.parameter,
                dim=m.dim,
                owner=_owners(m.index, analysis.tracing.parameters[m.parameter].shape[m.dim]),
            )
            for m in (heard if heard and plain else owned)
        ]
        return Site(name=group.name, size=group.size, minimum=group.minimum, factors=tuple(factors))

    return tuple(site(number, group) for number, group in enumerate(analysis.channels.groups))


def block_site(program: Program, block: Block, name: str) -> Site | None:
    """The site of a residual block's gate; None where its branch ends in nothing that could be multiplied."""
    nodes = {node.name: node for node in program.module.graph.nodes}
    start = nodes[block.add].args[block.operand]
    found = _end(start, lambda node: node.name in block.nodes and len(node.users) == 1)
    if not found or any(len(n.users) > 1 or str(n.target) not in block.parameters for n in found):
        return None
    nothing = torch.zeros(0, dtype=torch.long)
    factors = tuple(Factor(parameter=str(n.target), dim=None, owner=nothing) for n in found)
    return Site(name=name, size=1, minimum=0, factors=factors)


def multiplied(
    parameters: Mapping[str, Tensor], sites: Iterable[Site], gates: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The parameters that gates touch, multiplied by them: a gate [size] for every site, by its name."""
    found: dict[str, Tensor] = {}
    for site in sites:
        gate = gates[site.name]
        open_ = torch.cat([gate, gate.new_ones(1)])  # what no gate owns: owner -1
        for factor in site.factors:
            weight = found.get(factor.parameter, parameters[factor.parameter])
            if factor.dim is None:
                found[factor.parameter] = weight * gate
                continue
            shape = [1] * weight.dim()
            shape[factor.dim] = -1
            along = open_[factor.owner.to(gate.device)].to(weight.dtype)
            found[factor.parameter] = weight * along.reshape(shape)
    return found


def _roles(module: GraphModule) -> tuple[set[tuple[str, int]], set[str]]:
    """(parameter, dimension) that layers sum over, and all parameters that only plain layers read."""
    listening: set[tuple[str, int]] = set()
    known: dict[str, bool] = {}
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        name = str(node.target)
        for user in node.users:
            call = call_of(user)
            dim = None if call is None else _summed_dim(call, node)
            if dim is not None:
                listening.add((name, dim))
            plain = dim is not None or (call is not None and _is_plain(call))
            known[name] = known.get(name, True) and plain
    return listening, {name for name, plain in known.items() if plain}


def _summed_dim(call: Call, weight: Node) -> int | None:
    """The dimension of `weight` that the call sums over; None where it does not read it as a weight."""
    if call.op in ("t", "transpose", "permute"):
        users = [call_of(user) for user in call.node.users]
        return 1 if users and all(u is not None and _is_matrix(u, call.node) for u in users) else None
    if _is_matrix(call, weight):
        return 0
    if call["weight"] is not weight:
        return None
    if call.op == "linear" or (call.op in _CONVOLUTIONS and not call["transposed"]):
        return 1
    if call.op not in (*_TRANSPOSED, *_CONVOLUTIONS):
        return None
    depthwise = call["groups"] > 1 and weight.meta["val"].shape[1] == 1
    return None if depthwise else 0


def _is_matrix(call: Call, node: Node) -> bool:
    second = call["mat2"] if call["mat2"] is not None else call["other"]
    return call.op in _MATRICES and second is node


def _is_plain(call: Call) -> bool:
    """Whether what the call reads is a bias, a scale or a shift: a channel of it stays that channel."""
    layer = call.op in (*_CONVOLUTIONS, *_TRANSPOSED, "linear", "addmm")
    return layer or call.op in (*_NORMS, "mul", "add", "sub", "prelu")


def _multiplied(analysis: Analysis) -> set[int]:
    """Numbers of the groups whose activations are summed over without weights."""
    tracing, found = analysis.tracing, set[int]()
    for node in tracing.module.graph.nodes:
        call = call_of(node)
        if call is None:
            continue
        dims: Sequence[tuple[Axes, int]] = ()
        if call.op in _PRODUCTS and all(n.op != "get_attr" for n in call.tensors()):
            first = next(call.tensors()) if call.op != "baddbmm" else call["batch1"]
            dims = [(tracing.axes(first), -1)]
        elif call.op == "einsum":
            dims = [
                (axes, d) for n in call["tensors"] for axes in [tracing.axes(n)] for d in range(len(axes))
            ]
        elif node in tracing.restricted and call.op not in _NORMS:
            source = tracing.axes(next(call.tensors()))
            dims = [(source, d) for d in tracing.restricted[node]]
        for axes, dim in dims:
            vector = axes.labels[dim]
            for column in tracing.labels.atoms(vector) if vector is not None else ():
                found.update(analysis.group_of[column].tolist())
    return found


def _end(start: object, belongs: Callable[[Node], bool]) -> list[Node]:
    """The last scale and shift before `start`, as far back as nodes belong; none where a factor is lost."""
    node = start
    while isinstance(node, Node) and belongs(node):
        call = call_of(node)
        found = [] if call is None else list(_scale_and_shift(call))
        if found or call is None or call.op not in _HOMOGENEOUS:
            return found
        node = next(call.tensors(), None)
    return []


def _ends(analysis: Analysis) -> set[str]:
    """The parameters that are the last scale or shift of a loose addition's operand."""
    operands = (node for join in analysis.tracing.joins for node in join.node.all_input_nodes)
    return {str(n.target) for operand in operands for n in _end(operand, lambda _: True)}


def _scale_and_shift(call: Call) -> Iterator[Node]:
    """The parameters whose product with a factor multiplies what the call puts out."""
    layer = call.op in (*_CONVOLUTIONS, *_TRANSPOSED, "linear")
    if layer or (call.op in _NORMS and isinstance(call["weight"], Node)):
        given = [call["weight"], call["bias"]]
    elif call.op == "addmm":
        given = [call["mat2"], call["self"]]
    elif call.op == "mul":
        given = [n for n in (call["self"], call["other"]) if isinstance(n, Node) and n.op == "get_attr"][:1]
    else:
        return
    found = [n for n in given if isinstance(n, Node)]
    if all(n.op == "get_attr" for n in found):
        yield from found


def _owners(index: Sequence[tuple[int, ...]], size: int) -> Tensor:
    owner = torch.full((size,), -1, dtype=torch.long)
    for unit, places in enumerate(index):
        owner[list(places)] = unit
    return owner
