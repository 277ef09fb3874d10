"""Projections packed into one tensor, taken apart before they are divided into heads.

Given:  reshape(x [.., 3 * h * d], [.., 3, h, d]), permuted, each of the three taken by number
Result: split(x, h * d), each part reshaped to [.., h, d] and permuted

The values and their layout in memory are the same. Taken apart first, the three are cut independently: the
inner width of the values no longer has to follow that of queries and keys. The packed axis may be anywhere
but last among the factors ([h, 3, d] too), and is followed through permutations, unit axes and copies.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.fx import Graph, GraphModule, Node

from toolchain.program.axes import Call, Sizes, call_of
from toolchain.program.labels import regroup

_aten = torch.ops.aten
_VIEWS: Final = ("view", "reshape", "_unsafe_view", "unflatten")


@dataclass(frozen=True, kw_only=True)
class _Packed:
    """What comes out of `view` along the way: which of its axes are where; -1 is a unit axis put in since."""

    view: Node
    axis: int
    order: tuple[int, ...]
    copied: bool = False

    @property
    def place(self) -> int:
        return self.order.index(self.axis)


def unpack(module: GraphModule) -> None:
    """Rewrite the graph in place, every packed projection once."""
    sizes = Sizes()
    for node in list(module.graph.nodes):
        call = call_of(node)
        if call is None or call.op not in _VIEWS or "val" not in node.meta:
            continue
        found = _divided(node, sizes)
        if found is None:
            continue
        source_dim, run = found
        shape = sizes.shape(node.meta["val"])
        for axis in run[:-1]:
            if shape[axis] > 1 and (ends := _ends(_start(node, axis))):
                _rewrite(module.graph, node, source_dim, run, axis, ends)
                break


def _start(view: Node, axis: int) -> _Packed:
    return _Packed(view=view, axis=axis, order=tuple(range(view.meta["val"].dim())))


def _divided(view: Node, sizes: Sizes) -> tuple[int, list[int]] | None:
    """(dimension of the source, dimensions of the result) where one dimension becomes three or more."""
    source = view.all_input_nodes[0]
    if "val" not in source.meta:
        return None
    before, after = sizes.shape(source.meta["val"]), sizes.shape(view.meta["val"])
    for first, second in regroup(before, after):
        wide = [d for d in second if after[d] > 1]
        literal = all(isinstance(view.meta["val"].shape[d], int) for d in second)
        if (
            len(first) == 1
            and len(wide) > 1
            and literal
            and isinstance(source.meta["val"].shape[first[0]], int)
        ):
            return first[0], second
    return None


def _ends(packed: _Packed) -> list[tuple[Node, int, _Packed]]:
    """(node, number, way) of all that is taken from the packed axis; none where it is used otherwise too."""
    found: list[tuple[Node, int, _Packed]] = []
    open_ = [(packed.view, packed)]
    while open_:
        node, way = open_.pop()
        for user in node.users:
            call = call_of(user)
            if call is None or node is not next(iter(call.arguments.values())):
                return []
            taken = _taken(call, way)
            if taken:
                found.extend((n, number, way) for n, number in taken)
                continue
            further = _moved(call, way)
            if further is None:
                return []
            open_.append((user, further))
    return found


def _taken(call: Call, way: _Packed) -> list[tuple[Node, int]]:
    """The nodes that yield one position of the packed axis, with its number."""
    rank = len(way.order)
    size = way.view.meta["val"].shape[way.axis]
    if call.op == "select" and call["dim"] % rank == way.place and isinstance(call["index"], int):
        return [(call.node, call["index"] % size)]
    if call.op == "unbind" and call["dim"] % rank == way.place:
        return [(user, user.args[1]) for user in call.node.users]  # type: ignore[misc]
    return []


def _moved(call: Call, way: _Packed) -> _Packed | None:
    """Where the axes are after an operator that only moves them; None for any other."""
    order, rank = list(way.order), len(way.order)
    if call.op == "permute":
        order = [order[d % rank] for d in call["dims"]]
    elif call.op == "transpose":
        first, second = call["dim0"] % rank, call["dim1"] % rank
        order[first], order[second] = order[second], order[first]
    elif call.op == "unsqueeze":
        order.insert(call["dim"] % (rank + 1), -1)
    elif call.op == "squeeze" and isinstance(call["dim"], int) and order[call["dim"] % rank] == -1:
        del order[call["dim"] % rank]
    elif call.op in ("contiguous", "clone"):
        return replace(way, copied=True)
    else:
        return None
    return replace(way, order=tuple(order))


def _rewrite(
    graph: Graph,
    view: Node,
    source_dim: int,
    run: list[int],
    axis: int,
    ends: list[tuple[Node, int, _Packed]],
) -> None:
    """Put the parts in the place of what was taken."""
    shape = list(view.meta["val"].shape)
    count = shape[axis]
    width = _product(shape[d] for d in run if d > axis)
    outer = [shape[d] for d in run if d < axis]
    with graph.inserting_before(view):
        source = view.all_input_nodes[0]
        sizes = _sizes_of(view)
        rest = [sizes[d] for d in range(len(shape)) if d != axis]
        if outer:
            # [.., h, 3 * d]: the packed axis is cut within each head.
            joined = [*sizes[:axis], count * width, *sizes[run[-1] + 1 :]]
            source = _made(graph, _aten.reshape.default, source, joined)
            source_dim = axis
        split = _made(graph, _aten.split_with_sizes.default, source, [width] * count, source_dim)
        parts = [_made(graph, operator.getitem, split, number) for number in range(count)]
    for node, number, way in ends:
        with graph.inserting_before(node):
            part = _reshaped(graph, parts[number], rest)
            node.replace_all_uses_with(_arranged(graph, part, way))
    _erase(graph, view)


def _reshaped(graph: Graph, part: Node, sizes: list[Any]) -> Node:
    """The part in these sizes; itself where it has them."""
    result = _made(graph, _aten.reshape.default, part, sizes)
    if str(tuple(result.meta["val"].shape)) != str(tuple(part.meta["val"].shape)):
        return result
    graph.erase_node(result)
    return part


def _arranged(graph: Graph, part: Node, way: _Packed) -> Node:
    """The part with its axes in the order they had, less the packed one."""
    kept = [a for a in way.order if a != way.axis]
    known = [a - (a > way.axis) for a in kept if a != -1]
    if known != sorted(known):
        part = _made(graph, _aten.permute.default, part, known)
    for place, a in enumerate(kept):
        if a == -1:
            part = _made(graph, _aten.unsqueeze.default, part, place)
    return _made(graph, _aten.contiguous.default, part) if way.copied else part


def _sizes_of(view: Node) -> list[Any]:
    """The sizes that the view asks for, dimension by dimension; -1 at most once, where it is not literal."""
    call = call_of(view)
    assert call is not None
    shape = view.meta["val"].shape
    if call.op == "unflatten":
        source = view.all_input_nodes[0]
        symbolic = [d for d, n in enumerate(shape) if not isinstance(n, int)]
        if len(symbolic) <= 1:
            return [n if isinstance(n, int) else -1 for n in shape]
        first, count = call["dim"] % source.meta["val"].dim(), len(call["sizes"])
        graph = view.graph
        return [
            n
            if isinstance(n, int)
            else _made(graph, _aten.sym_size.int, source, d if d < first else d - count + 1)
            for d, n in enumerate(shape)
        ]
    given = call["size"] if call["size"] is not None else call["shape"]
    return [n if isinstance(n, int) else g for n, g in zip(shape, given, strict=True)]


def _made(graph: Graph, target: Any, *args: Any) -> Node:
    """A call with its fake result, strides included."""
    node = graph.call_function(target, args)
    values = torch.fx.node.map_arg(args, lambda n: n.meta["val"])
    node.meta["val"] = target(*values)
    return node


def _erase(graph: Graph, node: Node) -> None:
    """The node and all that was made of it; nothing else uses it any more."""
    for user in list(node.users):
        _erase(graph, user)
    graph.erase_node(node)


def _product(numbers: Any) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
