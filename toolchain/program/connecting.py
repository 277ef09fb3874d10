"""Mixed connectivity: additions whose branches keep different channels.

Given:  y = add(u, v), of which u keeps some channels and v others
Result: what both keep is added, what one keeps is passed on, and nothing else is computed

Source: the mixed-connectivity block of Lemaire, Achkar and Jodoin, "Structured Pruning of Neural Networks
with Budget-Aware Regularization", CVPR 2019 (section 3.4.2 of the thesis).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor
from torch.fx import Node

from toolchain.program.blocks import blocks, drop
from toolchain.program.channels import analyse, examine
from toolchain.program.ordering import Keep, arranged
from toolchain.program.rewrite import apply
from toolchain.program.rules.parting import is_written, sharing
from toolchain.values import Channels, Program

_aten = torch.ops.aten
_ADDITIONS: Final = (_aten.add.Tensor, _aten.add_.Tensor)


def loosened(program: Program) -> Program:
    """The program with every addition loose that can be: branches then have channel groups of their own."""
    order = {node: place for place, node in enumerate(program.module.graph.nodes)}
    candidates = tuple(
        node.name for node in order if node.target in _ADDITIONS and _may_be_loose(node, order)
    )
    found = examine(replace(program, loose=candidates)).tracing.loose
    return replace(program, loose=tuple(name for name in candidates if name in found))


def connected(program: Program, keep: Keep, dropped: Collection[str] = ()) -> Program:
    """A loose program without the `dropped` blocks, with only the units `keep[group]` of its groups.

    Channels change their order so that those which the same branches keep lie side by side.

    Raises:
        InputError: an unknown block, group or unit, or units out of order.
    """
    ready, keep = prepared(program, keep, dropped)
    less = drop(ready, dropped)
    if less is not ready:
        keep = carried(analyse(ready), keep, analyse(less))
    return apply(less, analyse(less), keep)


def prepared(
    program: Program, keep: Keep, dropped: Collection[str] = ()
) -> tuple[Program, dict[str, tuple[int, ...]]]:
    """The whole program in the order of channels in which `connected` cuts it, and `keep` in its units."""
    gone = {name for block in blocks(program) if block.name in dropped for name in block.parameters}
    groups = analyse(program).groups if gone else ()
    vanishing = {g.name: () for g in groups if all(m.parameter in gone for m in g.members)}
    return arranged(program, keep, {**keep, **vanishing})


def completed(channels: Channels, keep: Keep) -> dict[str, tuple[int, ...]]:
    """`keep`, and with it what loose additions put out."""
    sizes = {group.name: group.size for group in channels.groups}
    kept = {name: set(keep.get(name, range(size))) for name, size in sizes.items()}
    merged = {
        group.name: tuple(u for u, units in enumerate(group.sources) if any(i in kept[g] for g, i in units))
        for group in channels.merged
    }
    return {**keep, **merged}


def carried(before: Channels, keep: Keep, after: Channels) -> dict[str, tuple[int, ...]]:
    """`keep` in the groups of the network without some of its blocks, by where they are in parameters."""
    gone: dict[tuple[str, int], set[int]] = {}
    for group in before.groups:
        for unit in set(range(group.size)) - set(keep.get(group.name, range(group.size))):
            for member in group.members:
                gone.setdefault((member.parameter, member.dim), set()).update(member.index[unit])
    found: dict[str, tuple[int, ...]] = {}
    for group in after.groups:
        member = group.members[0]
        lost = gone.get((member.parameter, member.dim), set())
        units = tuple(unit for unit, places in enumerate(member.index) if not lost.issuperset(places))
        if len(units) < group.size:
            found[group.name] = units
    return found


def _may_be_loose(node: Node, order: Mapping[Node, int]) -> bool:
    """Two computed tensors of one shape are added; what is written to in place is not read afterwards."""
    operands = node.args[:2]
    computed = all(isinstance(n, Node) and n.op == "call_function" for n in operands)
    if len(operands) < 2 or not computed or operands[0] is operands[1] or node.kwargs.get("alpha", 1) != 1:
        return False
    values = [n.meta.get("val") for n in operands if isinstance(n, Node)]
    shapes = {str(tuple(value.shape)) if isinstance(value, Tensor) else "" for value in values}
    if len(shapes) > 1 or "" in shapes:
        return False
    written = operands[0]
    assert isinstance(written, Node)
    if not is_written(written, node):
        return True
    earlier = (n for n in sharing(written) if order[n] < order[node])
    return all(order[user] <= order[node] for n in earlier for user in n.users)
