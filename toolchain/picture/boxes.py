"""The graph as boxes: a layer with its norm and activation is one box, data movement is none.

Given:  a traced graph of several hundred operators
Result: boxes and arrows, each box with the channel groups of what it yields
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from torch import Tensor
from torch.fx import Node

from toolchain.program.axes import Axes, Call, call_of
from toolchain.program.channels import Analysis

_MOVING: Final = frozenset(
    (
        *(
            "view",
            "reshape",
            "_unsafe_view",
            "flatten",
            "unflatten",
            "squeeze",
            "unsqueeze",
            "expand",
            "identity",
        ),
        *("permute", "transpose", "t", "movedim", "swapaxes", "contiguous", "clone", "detach", "alias", "to"),
        *("select", "slice", "narrow", "chunk", "split", "split_with_sizes", "unbind", "dropout"),
        *("feature_dropout", "alpha_dropout", "_to_copy", "expand_as"),
    )
)
"""Operators that a box's short text leaves out: its tooltip names them."""
_SHORT: Final = {
    "batch_norm": "bn",
    "layer_norm": "layer norm",
    "group_norm": "group norm",
    "scaled_dot_product_attention": "attention",
}


@dataclass(frozen=True, kw_only=True)
class Box:
    """One box of the picture.

    `width` gives, for each group (its number in `Channels.groups`, -1 for what stays), how many positions of
    the yielded tensor belong to it. `reasons` say why positions stay, `unknown` names operators without a
    rule, `parameters` what the box reads, `operators` everything in it, in graph order.
    """

    title: str
    detail: str
    shape: str
    width: tuple[tuple[int, int], ...]
    reasons: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    layer: bool = False


@dataclass(frozen=True, kw_only=True)
class Diagram:
    """Boxes, and arrows between their numbers."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int], ...]


def diagram(analysis: Analysis) -> Diagram:
    """The boxes and arrows of an analysed graph."""
    parts = _Parts.of(analysis)
    running = frozenset(parts.nodes)
    _fold(parts)
    numbers = {part: number for number, part in enumerate(parts.nodes)}
    arrows = sorted((numbers[a], numbers[b]) for b, sources in parts.before.items() for a in sources)
    boxes = tuple(_box(analysis, nodes, running) for nodes in parts.nodes.values())
    return Diagram(boxes=boxes, arrows=tuple(arrows))


@dataclass(kw_only=True)
class _Parts:
    """Sets of nodes that become boxes, called by their first node; who is before and after whom."""

    nodes: dict[Node, list[Node]] = field(default_factory=dict)
    before: dict[Node, dict[Node, None]] = field(default_factory=dict)
    after: dict[Node, dict[Node, None]] = field(default_factory=dict)
    alone: set[Node] = field(default_factory=set)

    @classmethod
    def of(cls, analysis: Analysis) -> _Parts:
        """Every node that depends on an input of the network is a part of its own."""
        parts = cls()
        for node in analysis.tracing.module.graph.nodes:
            sources = {n: None for n in node.all_input_nodes if n in parts.nodes}
            if node.op == "placeholder" or (sources and (_is_tensor(node) or node.op == "output")):
                parts.nodes[node] = [node]
                parts.before[node], parts.after[node] = sources, {}
                for source in sources:
                    parts.after[source][node] = None
                if _stands_alone(node, analysis):
                    parts.alone.add(node)
        return parts

    def merge(self, gone: Node, into: Node) -> None:
        """The part `gone` becomes one with its neighbour `into`."""
        inner = self.nodes.pop(gone)
        forward = into in self.after[gone]
        self.nodes[into] = inner + self.nodes[into] if forward else self.nodes[into] + inner
        for mine, theirs in ((self.before, self.after), (self.after, self.before)):
            for other in mine.pop(gone):
                del theirs[other][gone]
                if other is not into:
                    mine[into][other] = None
                    theirs[other][into] = None


def _is_tensor(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (
        isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value)
    )


def _stands_alone(node: Node, analysis: Analysis) -> bool:
    """Layers, products of activations, resizing, what has no rule: always a box of its own."""
    call = call_of(node)
    if call is None:
        return node.op in ("placeholder", "output")
    if call.op.startswith(("conv", "_convolution", "linear", "addmm", "lstm", "gru", "rnn")):
        return True
    if call.op.startswith(("matmul", "bmm", "mm", "scaled_dot", "einsum", "upsample", "pixel_")):
        return True
    return "pool" in call.op or str(node.target) in analysis.channels.unknown


def _fold(parts: _Parts) -> None:
    """Merge what has one neighbour: behind it (a norm after its layer), else before it.

    Merging along an arrow that is the only one out of its start never closes a cycle.
    """
    changed = True
    while changed:
        changed = False
        for backward in (True, False):
            for part in [p for p in parts.nodes if p not in parts.alone]:
                if len(parts.before[part]) != 1:
                    continue
                (source,) = parts.before[part]
                if backward and len(parts.after[source]) == 1 and _takes(source):
                    parts.merge(part, source)
                    changed = True
                elif not backward and len(parts.after[part]) == 1 and len(parts.after[source]) > 1:
                    (user,) = parts.after[part]
                    if _takes(user):
                        parts.merge(part, user)
                        changed = True


def _takes(part: Node) -> bool:
    return part.op not in ("placeholder", "output")


def _box(analysis: Analysis, nodes: Sequence[Node], running: Set[Node]) -> Box:
    last = nodes[-1]
    if last.op in ("placeholder", "output"):
        title = last.name if last.op == "placeholder" else "output"
        return Box(title=title, detail=last.op.replace("placeholder", "input"), shape=_shape(last), width=())
    calls = [call for node in nodes if (call := call_of(node)) is not None]
    parameters = tuple(dict.fromkeys(p for node in nodes for p in _parameters(node, running)))
    layers = sorted((c for c in calls if c["weight"] is not None), key=lambda call: "norm" in call.op)
    owner = next(iter(p for call in layers for p in _parameters(call.node, running)), "")
    texts = [_operator(call) for call in calls if call.op not in _MOVING] or [_plain(n) for n in nodes]
    joins = [_operator(call) for call in calls if sum(n in running for n in call.node.all_input_nodes) > 1]
    title = owner.rpartition(".")[0] or owner or (joins or texts)[0]
    width, reasons = _width(analysis, last)
    return Box(
        title=title,
        detail=" \N{MIDDLE DOT} ".join(t for t in dict.fromkeys(texts) if t != title),
        shape=_shape(last),
        width=width,
        reasons=reasons,
        unknown=tuple(str(n.target) for n in nodes if str(n.target) in analysis.channels.unknown),
        parameters=parameters,
        operators=tuple(f"{n.name}: {_plain(n)} {_shape(n)}".rstrip() for n in nodes),
        layer=bool(owner),
    )


def _parameters(node: Node, running: Set[Node]) -> Iterator[str]:
    """The parameters that a node reads, also through operators on parameters alone."""
    pending = [n for n in node.all_input_nodes if n not in running]
    while pending:
        found = pending.pop(0)
        if found.op == "get_attr":
            yield str(found.target)
        pending.extend(found.all_input_nodes)


def _plain(node: Node) -> str:
    call = call_of(node)
    return call.op if call is not None else getattr(node.target, "__name__", str(node.target))


def _operator(call: Call) -> str:
    """The operator with what a reader wants to know of a convolution."""
    weight = call["weight"]
    if "conv" not in call.op or not isinstance(weight, Node):
        return _SHORT.get(call.op, call.op)
    sizes = weight.meta["val"].shape if "val" in weight.meta else ()
    text = "conv" + (" transposed" if "transpose" in call.op or call["transposed"] else "")
    text += " " + "\N{MULTIPLICATION SIGN}".join(str(n) for n in sizes[2:])
    groups, stride = call["groups"] or 1, call["stride"]
    if groups > 1:
        text += " depthwise" if sizes and groups == sizes[0] else f" in {groups} groups"
    largest = max(stride) if isinstance(stride, list | tuple) and stride else stride
    return text + (f" /{largest}" if isinstance(largest, int) and largest > 1 else "")


def _shape(node: Node) -> str:
    """`64 x 32 x 32` without the batch, N for a batch in another place; parts of a split one by one."""
    value: Any = node.meta.get("val")
    if isinstance(value, list | tuple):
        parts = [_sizes(part) for part in value if isinstance(part, Tensor)]
        return f"{len(parts)} of {parts[0]}" if len(set(parts)) == 1 else ", ".join(parts)
    return _sizes(value) if isinstance(value, Tensor) else ""


def _sizes(value: Tensor) -> str:
    sizes = [str(n) if isinstance(n, int) else "N" for n in value.shape]
    return " \N{MULTIPLICATION SIGN} ".join(sizes[1:] if sizes[:1] == ["N"] else sizes)


def _width(analysis: Analysis, node: Node) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    """How many positions of the node's dimensions belong to each group, and why others stay."""
    labels, value = analysis.tracing.labels, analysis.tracing.values.get(node)
    counts: dict[int, int] = {}
    reasons: dict[str, None] = {}
    for axes in value if isinstance(value, tuple) else (value,):
        for vector in axes.labels if isinstance(axes, Axes) else ():
            if vector is None:
                continue
            groups = np.stack([analysis.group_of[column] for column in labels.atoms(vector)])
            stays = np.flatnonzero((groups < 0).all(0))
            reasons.update(dict.fromkeys(map(labels.reason, np.unique(vector[stays]).tolist())))
            for group, count in zip(*np.unique(groups[groups >= 0], return_counts=True), strict=True):
                counts[int(group)] = counts.get(int(group), 0) + int(count)
            if stays.size:
                counts[-1] = counts.get(-1, 0) + len(stays)
    return tuple(sorted(counts.items())), tuple(r for r in reasons if r)
