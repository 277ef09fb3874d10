"""Residual blocks that may vanish whole: found in the graph, and dropped.

Given:  y = add(x, branch(x))      every node of the branch feeds only this addition
Result: y = x                      equal to the original with the branch's last scale and shift at zero
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile
from typing import Final

import torch
from torch.fx import Node

from toolchain.errors import InputError
from toolchain.values import Block, Program

_aten = torch.ops.aten
_ADDITIONS: Final = {_aten.add.Tensor, _aten.add_.Tensor, operator.add, operator.iadd}
_RELU: Final = {_aten.relu.default: _aten.relu.default, _aten.relu_.default: _aten.relu.default}
_WEIGHTED: Final = {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.convolution.default,
    _aten.linear.default,
    _aten.conv_transpose2d.input,
}


def blocks(program: Program) -> tuple[Block, ...]:
    """Every branch with weights that can be dropped from an addition, in graph order.

    Where both operands qualify, the one with more weighted layers is the branch.
    """
    found: list[Block] = []
    for node in program.module.graph.nodes:
        if node.target in _ADDITIONS and len(node.args) >= 2 and _same_shape(node):
            sides = [side for operand in (0, 1) if (side := _branch(node, operand)) is not None]
            if sides:
                found.append(max(sides, key=lambda b: (_weighted(program, b), b.operand == 0)))
    return _distinct(found)


def drop(program: Program, names: Iterable[str]) -> Program:
    """The program without the named blocks; the original is not changed.

    Raises:
        InputError: there is no such block.
    """
    wanted = set(names)
    if not wanted:
        return program
    known = {block.name: block for block in blocks(program)}
    unknown = sorted(wanted - set(known))
    if unknown:
        raise InputError(
            f"the network has no removable block '{unknown[0]}'", hint=f"known: {', '.join(known)}"
        )
    module = copy.deepcopy(program.module)
    nodes = {node.name: node for node in module.graph.nodes}
    for name in (b for b in known if b in wanted):
        addition = nodes[known[name].add]
        trunk = addition.args[1 - known[name].operand]
        assert isinstance(trunk, Node)
        _bypass(addition, trunk)
    module.graph.eliminate_dead_code(is_impure_node=_has_effect)
    module.graph.lint()
    module.recompile()
    module.delete_all_unused_submodules()
    _delete_unused_parameters(module)
    return replace(program, module=module)


def _same_shape(node: Node) -> bool:
    """Both operands are tensors of the result's shape (no broadcasting)."""
    operands = node.args[:2]
    if not all(isinstance(a, Node) and hasattr(a.meta.get("val"), "shape") for a in operands):
        return False
    shapes = [tuple(a.meta["val"].shape) for a in operands if isinstance(a, Node)]
    return bool(str(shapes[0]) == str(shapes[1])) and bool(node.kwargs.get("alpha", 1) == 1)


def _branch(addition: Node, operand: int) -> Block | None:
    """What dies when `operand` of the addition is dropped; None when that holds no weighted layer."""
    start, trunk = addition.args[operand], addition.args[1 - operand]
    assert isinstance(start, Node)
    dying: dict[Node, None] = {}
    pending = [start]
    while pending:
        node = pending.pop()
        if node is trunk or node in dying or node.op == "placeholder":
            continue
        if all(user in dying or user is addition for user in node.users):
            dying[node] = None
            pending.extend(node.all_input_nodes)
    if trunk in dying or not any(node.target in _WEIGHTED for node in dying):
        return None
    parameters = tuple(sorted(str(n.target) for n in dying if n.op == "get_attr"))
    return Block(
        name=_name(parameters, addition.name),
        add=addition.name,
        operand=operand,
        nodes=tuple(n.name for n in dying),
        parameters=parameters,
    )


def _name(parameters: tuple[str, ...], fallback: str) -> str:
    """The modules' common path, e.g. `layer1.2` for `layer1.2.conv1.weight` and `layer1.2.bn2.bias`."""
    paths = [p.split(".") for p in parameters]
    common = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in common) or fallback


def _distinct(found: list[Block]) -> tuple[Block, ...]:
    """Names made unique; a block inside another one's branch is kept, both may be dropped."""
    names = [block.name for block in found]
    return tuple(
        replace(block, name=f"{block.name}@{block.add}") if names.count(block.name) > 1 else block
        for block in found
    )


def _weighted(program: Program, block: Block) -> int:
    inside = set(block.nodes)
    return sum(n.name in inside and n.target in _WEIGHTED for n in program.module.graph.nodes)


def _bypass(addition: Node, trunk: Node) -> None:
    """Let the addition's users read the trunk, never writing into it, and ReLU it at most once."""
    for user in list(addition.users):
        user.replace_input_with(addition, trunk)
        if user.target in _RELU:
            if trunk.target in _RELU:
                user.replace_all_uses_with(trunk)
            else:
                user.target = _RELU[user.target]
        elif isinstance(user.target, torch._ops.OpOverload) and user.target._schema.is_mutable:
            with user.graph.inserting_before(user):
                own = user.graph.call_function(_aten.clone.default, (trunk,))
            own.meta = dict(trunk.meta)
            user.replace_input_with(trunk, own)


def _has_effect(node: Node) -> bool:
    """What must stay although nobody reads it. In-place operators on dead values may go."""
    return node.op in ("placeholder", "output")


def _delete_unused_parameters(module: torch.fx.GraphModule) -> None:
    used = {str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
    tensors = [n for n, _ in (*module.named_parameters(), *module.named_buffers()) if n not in used]
    for name in tensors:
        owner, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(owner), leaf)
