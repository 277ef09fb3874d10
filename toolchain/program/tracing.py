"""Pushing labels through the graph: one rule an operator, in graph order."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain.program.axes import Axes, Call, Sizes, Value, attribute, call_of, place_of
from toolchain.program.labels import Ints, Labels, Vector
from toolchain.program.rules.shuffling import Shuffle


@dataclass(frozen=True, kw_only=True)
class Join:
    """A loose addition: along `dim`, position i of its result is there while one of its operands' is."""

    node: Node
    dim: int
    operands: tuple[Ints, Ints]
    result: Ints


@dataclass(frozen=True, kw_only=True)
class Tracing:
    """What is known of a graph's channels so far; rules add to it.

    `facts` holds what a rule wants to tell the rewriting of its node (vectors by name). `restricted` holds,
    for operators that compute over a removable dimension, these dimensions of their (first) input.
    `contracted` holds the operands of a product whose removed elements would count in its sums, with the
    dimensions summed over; `vanishing` remembers of which tensors the removed elements are zero. `shuffles`
    holds the nodes where a shuffle of channels ends. `minima` holds how many channels of a vector have to
    stay at least. `unknown` counts the operators without a rule that froze something. Additions named in
    `loose` do not tie their operands; `joins` says what they put out.
    """

    module: GraphModule
    loose: frozenset[str] = frozenset()
    labels: Labels = field(default_factory=Labels)
    sizes: Sizes = field(default_factory=Sizes)
    values: dict[Node, Value] = field(default_factory=dict)
    parameters: dict[str, Axes] = field(default_factory=dict)
    same: dict[int, str] = field(default_factory=dict)
    facts: dict[Node, dict[str, Vector]] = field(default_factory=dict)
    restricted: dict[Node, tuple[int, ...]] = field(default_factory=dict)
    contracted: dict[Node, dict[Node, tuple[int, ...]]] = field(default_factory=dict)
    vanishing: dict[tuple[Node, int], bool] = field(default_factory=dict)
    shuffles: dict[Node, Shuffle] = field(default_factory=dict)
    notes: list[tuple[Vector, str]] = field(default_factory=list)
    minima: list[tuple[Vector, int]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    joins: list[Join] = field(default_factory=list)

    def axes(self, node: Any) -> Axes:
        """The labelled shape of a tensor argument."""
        value = self.values[node]
        assert isinstance(value, Axes), node
        return value

    def maybe(self, node: Any) -> Axes | None:
        """The labelled shape of an optional tensor argument."""
        return self.axes(node) if isinstance(node, Node) and isinstance(self.values[node], Axes) else None

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape of what the node yields."""
        return self.sizes.shape(node.meta["val"])

    def tie(self, first: Vector, second: Vector, call: Call) -> Vector:
        """Positions of both exist together, because of `call`."""
        return self.labels.tie(first, second, f"tied by {call.place} ({call.op}) to what cannot be removed")

    def meet(self, first: Vector, second: Vector, call: Call, dim: int) -> Vector:
        """The channels of an elementwise result along `dim`; a loose addition has those of either operand."""
        if call.node.name not in self.loose or first is None or second is None:
            return self.tie(first, second, call)
        result = self.labels.fresh(len(first))
        self.joins.append(Join(node=call.node, dim=dim, operands=(first, second), result=result))
        return result

    def freeze(self, axes: Axes | None, dims: Iterable[int], reason: str) -> None:
        """Nothing along these dimensions may be removed."""
        for dim in dims if axes is not None else ():
            assert axes is not None
            self.labels.freeze(axes.labels[dim], reason)

    def restrict(self, call: Call, dims: Sequence[int], axes: Axes, note: str) -> None:
        """Remember that `call` computes over removable dimensions of its first input."""
        labelled = tuple(d for d in dims if axes.labels[d] is not None)
        if labelled:
            self.restricted[call.node] = labelled
            self.notes.extend((axes.labels[d], note) for d in labelled)

    def keep_two(self, axes: Axes, dims: Sequence[int]) -> None:
        """A variance over these dimensions has to have two numbers at least, else it is not defined."""
        if all(axes.labels[d] is not None or axes.shape[d] == 1 for d in dims):
            self.minima.extend((axes.labels[d], 2) for d in dims)

    def yields(self, node: Node, labels: Mapping[int, Vector]) -> Axes:
        """Axes of the node's shape with these labels; a position alone in its dimension stays."""
        shape = self.shape(node)
        for d, size in enumerate(shape):
            if size == 1:
                self.labels.freeze(labels.get(d), f"{place_of(node)}: alone in its dimension")
        return Axes(shape=shape, labels=tuple(labels.get(d) if n != 1 else None for d, n in enumerate(shape)))

    def parameter(self, node: Node) -> Value:
        """Fresh labels for a parameter, buffer or constant; the same ones wherever the tensor is used."""
        name = str(node.target)
        tensor = attribute(self.module, name)
        if not isinstance(tensor, Tensor):
            return None
        name = self.same.setdefault(id(tensor), name)
        if name not in self.parameters:
            depth = 2 if _is_kernel(node) else tensor.dim()
            labels = tuple(self.labels.mint(n) if d < depth else None for d, n in enumerate(tensor.shape))
            self.parameters[name] = Axes(shape=tuple(tensor.shape), labels=labels)
        return self.parameters[name]


Rule = Callable[[Tracing, Call], Value]


def trace(
    module: GraphModule,
    rules: Mapping[str, Rule],
    pointwise: Rule,
    loose: Collection[str] = (),
    *,
    open_inputs: bool = False,
) -> Tracing:
    """Label every tensor of the graph. What reaches an output stays; so does what has no rule.

    Inputs stay too; where they are open, positions of their dimension 1 may go.
    """
    tracing = Tracing(module=module, loose=frozenset(loose))
    for node in module.graph.nodes:
        if node.op == "get_attr":
            tracing.values[node] = tracing.parameter(node)
        elif node.op == "output":
            for output in node.all_input_nodes:
                axes = tracing.maybe(output)
                tracing.freeze(axes, range(len(axes or ())), "reaches an output of the network")
        elif node.op == "placeholder" and open_inputs:
            tracing.values[node] = _entering(tracing, node)
        elif node.op == "placeholder":
            tracing.values[node] = _staying(tracing, node, f"{node.name}: an input of the network")
        else:
            tracing.values[node] = _apply(tracing, node, rules, pointwise)
    return tracing


def _apply(tracing: Tracing, node: Node, rules: Mapping[str, Rule], pointwise: Rule) -> Value:
    if node.target is operator.getitem and isinstance(tracing.values[node.args[0]], tuple):  # type: ignore[index]
        return tracing.values[node.args[0]][node.args[1]]  # type: ignore[index]
    call = call_of(node)
    if call is None:
        return _staying(tracing, node) if not _tensor_inputs(node) else freeze_all(tracing, node)
    rule = rules.get(call.op)
    if rule is None and torch.Tag.pointwise in node.target.tags:  # type: ignore[union-attr]
        rule = pointwise
    if rule is not None:
        return rule(tracing, call)
    return freeze_all(tracing, node)


def freeze_all(tracing: Tracing, node: Node, why: str = "has no rule") -> Value:
    """The safe way out: nothing of the node's inputs may be removed."""
    if not _yields_tensor(node) and not _mutates(node):
        return None
    name = str(node.target)
    inputs = [tracing.values.get(used) for used in node.all_input_nodes]
    labelled = [a for v in inputs for a in (v if isinstance(v, tuple) else (v,)) if a is not None]
    if any(v is not None and tracing.labels.roots(v).any() for axes in labelled for v in axes.labels):
        tracing.unknown[name] = tracing.unknown.get(name, 0) + 1
    reason = f"{place_of(node)} ({name}) {why}"
    for axes in labelled:
        tracing.freeze(axes, range(len(axes)), reason)
    return _staying(tracing, node, reason)


def _staying(tracing: Tracing, node: Node, reason: str = "") -> Value:
    """What the node yields, of which all stays; what is tied to its channels inherits the reason."""
    value = node.meta.get("val")
    label = tracing.labels.fresh(1)
    if reason:
        tracing.labels.freeze(label, reason)

    def axes(tensor: Any) -> Axes | None:
        if not isinstance(tensor, Tensor):
            return None
        shape = tracing.sizes.shape(tensor)
        channels = (1,) if len(shape) > 3 else range(1, len(shape))
        labels = (
            label.repeat(n) if reason and d in channels and n > 1 else None for d, n in enumerate(shape)
        )
        return Axes(shape=shape, labels=tuple(labels))

    if isinstance(value, list | tuple):
        return tuple(axes(v) for v in value)
    return axes(value)


def _entering(tracing: Tracing, node: Node) -> Axes:
    """An input whose dimension 1 (channels of an image, features) has a label for every position."""
    shape = tracing.shape(node)
    return tracing.yields(node, {1: tracing.labels.fresh(shape[1])} if len(shape) > 1 else {})


def _tensor_inputs(node: Node) -> bool:
    return any(_yields_tensor(used) for used in node.all_input_nodes)


def _yields_tensor(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (
        isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value)
    )


def _mutates(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_kernel(node: Node) -> bool:
    """Used by convolutions only, as their weight: dimensions past the second are no channels."""
    calls = [call_of(user) for user in node.users]
    return bool(calls) and all(
        c is not None and c.op.startswith(("conv", "_convolution")) and c["weight"] is node for c in calls
    )
