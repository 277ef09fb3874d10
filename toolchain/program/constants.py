"""Constants of the graph that depend on widths, operator by operator.

Given:  a call whose operands have been cut
Result: the same call with the sizes, counts and positions that the cut leaves
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain.errors import UnsupportedError
from toolchain.program.axes import Axes, Call, attribute
from toolchain.program.channels import Analysis
from toolchain.program.labels import Ints, Vector
from toolchain.program.rules.parting import is_written, range_of

_aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """A copy of a graph being cut: `origin` leads from its nodes to the analysed ones."""

    analysis: Analysis
    stays: Ints
    module: GraphModule
    origin: dict[Node, Node]
    _known: dict[int, tuple[Ints, NDArray[np.bool_], Tensor | None]] = field(default_factory=dict)

    def kept(self, vector: Ints) -> NDArray[np.bool_]:
        """Which positions stay."""
        return self._looked_up(vector)[1]

    def _looked_up(self, vector: Ints) -> tuple[Ints, NDArray[np.bool_], Tensor | None]:
        """The vector, what stays, and its positions unless that is all; most vectors occur at many nodes."""
        found = self._known.get(id(vector))
        if found is None:
            stays = np.ones(len(vector), bool)
            for column in self.analysis.tracing.labels.atoms(vector):
                stays &= self.stays[column] > 0
            positions = None if stays.all() else torch.from_numpy(np.flatnonzero(stays))
            found = self._known[id(vector)] = vector, stays, positions
        return found

    def count(self, vector: Vector, size: int) -> int:
        """How many of the positions of a dimension stay."""
        return size if vector is None else int(self.kept(vector).sum())

    def partly_kept(self, axes: Axes) -> dict[int, Tensor]:
        """For each dimension that loses something: the positions that stay, ascending."""
        found = {d: self._looked_up(v)[2] for d, v in enumerate(axes.labels) if v is not None}
        return {d: positions for d, positions in found.items() if positions is not None}

    def axes(self, node: Node) -> Axes:
        """The labelled shape of a node of the copy, before the cut."""
        return self.analysis.tracing.axes(self.origin[node])

    def fact(self, call: Call, name: str) -> Vector:
        """What the rule left for the rewriting."""
        return self.analysis.tracing.facts.get(self.origin[call.node], {}).get(name)

    def constant(self, call: Call, name: str, value: Tensor) -> Node:
        """A new buffer, read just before the call."""
        base = name = f"{call.node.name}_{name}"
        tries = 1
        while hasattr(self.module, name):  # left by an earlier cut, and perhaps read elsewhere too
            tries += 1
            name = f"{base}_{tries}"
        self.module.register_buffer(name, value)
        with self.module.graph.inserting_before(call.node):
            return self.module.graph.get_attr(name)


def sizes(cut: Cutting, call: Call) -> None:
    """Given: view(x, [n, 64, 49]). Result: view(x, [n, kept, 49])."""
    if cut.origin[call.node] in cut.analysis.tracing.shuffles:
        shuffled(cut, call)
        return
    name = next(n for n in ("size", "shape", "sizes") if n in call.positions)
    given = list(call[name])
    axes = cut.axes(call.node)
    first = 0
    if call.op == "unflatten":
        first = cut.axes(call["input" if "input" in call.positions else "self"]).dim(call["dim"])
    for place, size in enumerate(given):
        dim = first + place
        vector = axes.labels[dim]
        kept = cut.count(vector, axes.shape[dim])
        if vector is None or kept == axes.shape[dim] or size == -1:
            continue
        given[place] = kept if isinstance(size, int) else -1
    if given.count(-1) > 1 and call.op != "expand":
        given = [_literal(cut, call, first + place, size) for place, size in enumerate(given)]
    if sum(isinstance(s, int) and s == -1 for s in given) > 1 and call.op != "expand":
        raise UnsupportedError(f"{call.node.name}: several sizes of this view depend on the batch")
    if given != list(call[name]):
        call.put(name, given)


def _literal(cut: Cutting, call: Call, dim: int, size: Any) -> Any:
    """The size in numbers where it was left open but does not depend on the batch."""
    axes = cut.axes(call.node)
    known = isinstance(call.node.meta["val"].shape[dim], int)
    return cut.count(axes.labels[dim], axes.shape[dim]) if known and size == -1 else size


def shuffled(cut: Cutting, call: Call) -> None:
    """Given: the end of a channel shuffle of x. Result: x[:, kept channels in their new order]."""
    shuffle = cut.analysis.tracing.shuffles.get(cut.origin[call.node])
    if shuffle is None:
        return
    vector = cut.analysis.tracing.axes(shuffle.source).labels[shuffle.dim]
    kept = cut.kept(vector) if vector is not None else np.ones(0, bool)
    if kept.all():
        return
    chain = [call.node]
    while cut.origin[chain[-1]] is not shuffle.source:
        chain.append(chain[-1].all_input_nodes[0])
    order = shuffle.permutation[kept[shuffle.permutation]]
    index = cut.constant(call, "positions", torch.from_numpy((np.cumsum(kept) - 1)[order]))
    call.node.target = _aten.index_select.default
    call.node.args, call.node.kwargs = (chain[-1], shuffle.dim, index), {}
    for between in chain[1:-1]:
        cut.module.graph.erase_node(between)


def shuffled_end(cut: Cutting, call: Call) -> None:
    """Given: flatten(x, a, b), which needs no sizes unless it ends a shuffle."""
    if cut.origin[call.node] in cut.analysis.tracing.shuffles:
        shuffled(cut, call)


def groups(cut: Cutting, call: Call) -> None:
    """Given: a convolution with g groups. Result: with as many as stay."""
    vector = cut.fact(call, "groups")
    if vector is not None:
        name = next(n for n in ("groups", "num_groups", "group") if n in call.positions)
        call.put(name, int(cut.kept(vector).sum()))
    if call.op == "native_group_norm":
        x = cut.axes(call["input"])
        call.put("C", cut.count(x.labels[1], x.shape[1]))


def convolved(cut: Cutting, call: Call) -> None:
    """Given: a convolution. Result: with the groups that stay; one that slides over channels sees them all.

    For that, removed channels come back as zeros before it and go again after it.
    """
    groups(cut, call)
    for dim in cut.analysis.tracing.restricted.get(cut.origin[call.node], ()):
        source: Node = call["input"]
        vector = cut.axes(source).labels[dim]
        if vector is None or cut.kept(vector).all():
            continue
        kept = cut.kept(vector)
        graph, value = cut.module.graph, source.meta["val"]
        zero = np.where(kept, np.cumsum(kept) - 1, kept.sum())
        places = cut.constant(call, "places", torch.from_numpy(zero))
        stay = cut.constant(call, "positions", torch.from_numpy(np.flatnonzero(kept)))
        amounts = [0, 0] * (value.dim() - 1 - dim) + [0, 1]
        with graph.inserting_before(call.node):
            padded = graph.call_function(_aten.pad.default, (source, amounts))
            whole = graph.call_function(_aten.index_select.default, (padded, dim, places))
        shape = [int(kept.sum()) + 1 if d == dim else n for d, n in enumerate(value.shape)]
        padded.meta["val"], whole.meta["val"] = value.new_empty(shape), value
        call.node.replace_input_with(source, whole)
        with graph.inserting_after(call.node):
            result = graph.call_function(_aten.index_select.default, (call.node, dim, stay))
        result.meta["val"] = call.node.meta["val"]
        for user in [u for u in call.node.users if u is not result]:
            user.replace_input_with(call.node, result)
        cut.origin[result] = cut.origin.pop(call.node)


def normalized(cut: Cutting, call: Call) -> None:
    """Given: layer_norm(x, [c]). Result: layer_norm(x, [kept])."""
    x = cut.axes(call["input"])
    shape = list(call["normalized_shape"])
    for place in range(len(shape)):
        dim = len(x) - len(shape) + place
        shape[place] = cut.count(x.labels[dim], x.shape[dim])
    if shape != list(call["normalized_shape"]):
        call.put("normalized_shape", shape)


def bounds(cut: Cutting, call: Call) -> None:
    """Given: x[:, a:b:s]. Result: the range of the kept positions, or a list of them where it is no range."""
    x = cut.axes(call["self"])
    dim = x.dim(call["dim"] or 0)
    vector = x.labels[dim]
    if vector is None:
        return
    kept = cut.kept(vector)
    if kept.all():
        return
    positions = range_of(call, x.shape[dim])
    taken = np.arange(x.shape[dim])[positions]
    now = (np.cumsum(kept) - 1)[taken[kept[taken]]]
    start = int(now[0]) if now.size else 0
    if now.size < 2 or (np.diff(now) == 1).all():
        _put_range(call, start, start + now.size)
    elif call.op == "slice":
        index = cut.constant(call, "positions", torch.from_numpy(now))
        call.node.target = _aten.index_select.default
        call.node.args, call.node.kwargs = (call["self"], dim, index), {}
        _write_back(cut, call, dim, index)
    else:
        raise UnsupportedError(f"{call.node.name}: a strided write into a cut dimension")


def _write_back(cut: Cutting, call: Call, dim: int, index: Node) -> None:
    """A view that became a copy: what is written to it is written to its source too."""
    for user in list(call.node.users):
        if is_written(call.node, user):
            with cut.module.graph.inserting_after(user):
                back = cut.module.graph.call_function(
                    _aten.index_copy_.default, (call["self"], dim, index, user)
                )
            back.meta["val"] = call["self"].meta["val"]


def _put_range(call: Call, start: int, end: int) -> None:
    if call.op == "narrow":
        call.put("start", start)
        call.put("length", end - start)
        return
    for name, value in (("dim", call["dim"] or 0), ("start", start), ("end", end), ("step", 1)):
        position = call.positions.index(name)
        if position < len(call.node.args):
            call.node.update_arg(position, value)
        elif position == len(call.node.args) and name not in call.node.kwargs:
            call.node.args = (*call.node.args, value)
        else:
            call.node.update_kwarg(name, value)


def number(cut: Cutting, call: Call) -> None:
    """Given: x.select(d, i). Result: i counted among the kept positions."""
    vector = cut.fact(call, "vector")
    if vector is not None:
        kept = cut.kept(vector)
        call.put("index", int(kept[: call["index"] % len(vector)].sum()))


def division(cut: Cutting, call: Call) -> None:
    """Given: chunk, split. Result: split_with_sizes with the kept sizes."""
    x = cut.axes(call["self"])
    dim = x.dim(call["dim"] or 0)
    vector = x.labels[dim]
    if vector is None or call.op == "unbind":
        return
    kept = cut.kept(vector)
    if kept.all():
        return
    parts = cut.analysis.tracing.values[cut.origin[call.node]]
    assert isinstance(parts, tuple)
    edges = np.cumsum([0, *(p.shape[dim] for p in parts if p is not None)])
    left = [int(kept[a:b].sum()) for a, b in pairwise(edges.tolist())]
    call.node.target = _aten.split_with_sizes.default
    call.node.args, call.node.kwargs = (call["self"], left, dim), {}


def padding(cut: Cutting, call: Call) -> None:
    """Given: pad(x, [.., a, b]) along the channels. Result: as many pad channels as stay."""
    amounts = list(call["pad"])
    result = cut.axes(call.node)
    for k in range(len(amounts) // 2):
        dim = len(result) - 1 - k
        vector = result.labels[dim]
        if vector is not None and any(amounts[2 * k : 2 * k + 2]):
            kept = cut.kept(vector)
            before, after = amounts[2 * k : 2 * k + 2]
            amounts[2 * k] = int(kept[:before].sum())
            amounts[2 * k + 1] = int(kept[len(kept) - after :].sum())
    if amounts != list(call["pad"]):
        call.put("pad", amounts)


def shifts(cut: Cutting, call: Call) -> None:
    """Given: roll(x, s, d). Result: rolled by the number of kept positions that move round."""
    x = cut.axes(call["self"])
    several = isinstance(call["shifts"], list | tuple)
    given = list(call["shifts"]) if several else [call["shifts"]]
    dims = call["dims"] if isinstance(call["dims"], list | tuple) else [call["dims"]]
    for place, dim in enumerate(dims):
        vector = x.labels[x.dim(dim)]
        if vector is not None:
            moved = given[place] % len(vector)
            given[place] = int(cut.kept(vector)[len(vector) - moved :].sum())
    if given != list(call["shifts"] if several else [call["shifts"]]):
        call.put("shifts", given)


def numbers(cut: Cutting, call: Call) -> None:
    """Given: x[:, index] with constant numbers. Result: the kept ones, renumbered."""
    source, result = cut.fact(call, "source"), cut.fact(call, "result")
    if source is None or result is None or cut.kept(source).all():
        return
    several = "indices" in call.positions
    old: Any = next(i for i in call["indices"] if i is not None) if several else call["index"]
    value = attribute(cut.module, str(old.target))
    renumbered = np.cumsum(cut.kept(source)) - 1
    index = torch.from_numpy(renumbered[value.numpy()][cut.kept(result)]).to(value.dtype)
    new = cut.constant(call, "positions", index)
    call.node.replace_input_with(old, new)


def copies(cut: Cutting, call: Call) -> None:
    """Given: repeat_interleave(x, n). Result: as many copies of each position as stay."""
    vector = cut.fact(call, "copies")
    if vector is not None:
        call.put("repeats", int(cut.kept(vector).sum()))


def scale(cut: Cutting, call: Call) -> None:
    """Given: attention with the default scale. Result: 1 / sqrt(the original width) written out."""
    q = cut.axes(call["query"])
    if call["scale"] is None and cut.count(q.labels[-1], q.shape[-1]) != q.shape[-1]:
        call.node.update_kwarg("scale", 1 / math.sqrt(q.shape[-1]))


def paired(cut: Cutting, call: Call) -> None:
    """Given: view_as_complex(x). Result: of a copy, since a cut may leave strides that it refuses."""
    x = call["self"]
    with cut.module.graph.inserting_before(call.node):
        copy = cut.module.graph.call_function(
            _aten.clone.default, (x,), {"memory_format": torch.contiguous_format}
        )
    copy.meta["val"], cut.origin[copy] = x.meta["val"], cut.origin[x]
    call.node.replace_input_with(x, copy)


REWRITES: Final[dict[str, Callable[[Cutting, Call], None]]] = {
    **dict.fromkeys(
        ["view", "reshape", "_unsafe_view", "view_copy", "_reshape_alias", "unflatten", "expand"], sizes
    ),
    **dict.fromkeys(
        ["zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"], sizes
    ),
    **dict.fromkeys(["conv1d", "conv2d", "conv3d", "convolution", "_convolution"], convolved),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], groups),
    **dict.fromkeys(["group_norm", "native_group_norm"], groups),
    **dict.fromkeys(["layer_norm", "native_layer_norm", "rms_norm"], normalized),
    **dict.fromkeys(["slice", "narrow", "slice_scatter"], bounds),
    **dict.fromkeys(
        [
            "split",
            "chunk",
            "split_with_sizes",
            "unsafe_split",
            "unsafe_chunk",
            "unsafe_split_with_sizes",
            "tensor_split",
        ],
        division,
    ),
    **dict.fromkeys(["pad", "constant_pad_nd"], padding),
    **dict.fromkeys(
        [
            "index",
            "index_select",
            "index_put",
            "_index_put_impl",
            "index_add",
            "index_copy",
            "index_fill",
        ],
        numbers,
    ),
    "flatten": shuffled_end,
    "channel_shuffle": shuffled,
    "select": number,
    "repeat_interleave": copies,
    "roll": shifts,
    "scaled_dot_product_attention": scale,
    "view_as_complex": paired,
}
