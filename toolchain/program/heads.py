"""A network for some of its classes: the head narrowed to them, exactly.

Given:  y [n, classes, ...], the first output
Result: y[:, wanted], with every parameter element gone that only the other classes needed

The analysis keeps whatever reaches an output. Seen through a sum over the classes they are channels like any
others, which are cut like any others; then the sum goes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.fx import GraphModule, Node

from toolchain.errors import InputError, UnsupportedError
from toolchain.program.channels import Analysis, examine
from toolchain.program.labels import FIXED
from toolchain.program.rewrite import apply
from toolchain.values import Program


def narrowed_head(program: Program, wanted: Sequence[int]) -> Program:
    """The program whose first output has only the classes `wanted` (ascending numbers); it is not changed.

    A softmax at the end gives shares of these classes alone.

    Raises:
        InputError: a number that is no class, or fewer than two.
        UnsupportedError: what makes the classes cannot be told apart.
    """
    shape = program.outputs[0].shape
    count = shape[1] if len(shape) > 1 else None
    if count is None:
        raise UnsupportedError(f"output '{program.outputs[0].name}' {list(shape)} has no classes")
    if len(wanted) < 2 or sorted(set(wanted)) != list(wanted) or not 0 <= wanted[0] <= wanted[-1] < count:
        raise InputError(f"{list(wanted)} are no two or more of the network's {count} classes")
    module = copy.deepcopy(program.module)
    head = _head(module)
    with module.graph.inserting_after(head):
        total = module.graph.call_function(torch.ops.aten.sum.dim_IntList, (head, [1]))
    total.meta["val"] = head.meta["val"].sum(1)
    _put_out(module, head, total)
    summed = replace(program, module=module)
    analysis = examine(summed)
    group, units = _units(analysis, head, count)
    cut = apply(summed, analysis.channels, {group: tuple(sorted(units[c] for c in wanted))})
    narrow = _head(cut.module)
    inner = narrow.args[0]
    assert isinstance(inner, Node)
    _put_out(cut.module, narrow, inner)
    cut.module.graph.erase_node(narrow)
    cut.module.graph.lint()
    cut.module.recompile()
    spec = replace(program.outputs[0], shape=(shape[0], len(wanted), *shape[2:]))
    names = tuple(program.classes[c] for c in wanted) if program.classes else ()
    return replace(cut, outputs=(spec, *program.outputs[1:]), classes=names)


def _head(module: GraphModule) -> Node:
    """The node of the first output."""
    (output,) = module.graph.find_nodes(op="output")
    found: Node = output.all_input_nodes[0]
    return found


def _put_out(module: GraphModule, old: Node, new: Node) -> None:
    """The first output is `new` from now on."""
    (output,) = module.graph.find_nodes(op="output")
    output.replace_input_with(old, new)


def _units(analysis: Analysis, head: Node, count: int) -> tuple[str, list[int]]:
    """The group of the classes, and each one's unit in it."""
    vector = analysis.tracing.axes(head).labels[1]
    columns = [] if vector is None else analysis.tracing.labels.atoms(vector)
    if len(columns) == 1 and not (columns[0] == FIXED).any():
        groups = analysis.group_of[columns[0]]
        units = analysis.unit_of[columns[0]].tolist()
        number = int(groups[0])
        if number >= 0 and (groups == number).all() and len(set(units)) == count:
            return analysis.channels.groups[number].name, units
    raise UnsupportedError(
        "the network's classes cannot be told apart: other parts of it depend on them",
        hint="leave --classes out",
    )
