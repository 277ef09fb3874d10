"""Labelled shapes and operator calls: what a rule reads and returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.fx import Node

from toolchain.program.labels import Vector

_PRIMES: Final = (13, 17, 19, 23, 29, 31, 37, 41)
"""Sizes that stand for symbolic dimensions: they divide no usual width, so that reshapes stay readable."""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The shape of a tensor with symbols replaced by numbers, and a label vector for each dimension."""

    shape: tuple[int, ...]
    labels: tuple[Vector, ...]

    def __len__(self) -> int:
        return len(self.shape)

    def dim(self, dim: int) -> int:
        """A dimension counted from the front."""
        return dim % len(self.shape) if self.shape else 0


Value = Axes | tuple[Axes | None, ...] | None
"""What a node of the graph yields: a tensor, several, or none."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """An operator call of the graph with its arguments by name, defaults filled in."""

    node: Node
    op: str
    arguments: dict[str, Any]
    positions: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def place(self) -> str:
        """For messages: the node, and the layer that it came from where that is known."""
        return place_of(self.node)

    def put(self, name: str, value: Any) -> None:
        """Change an argument of the node."""
        position = self.positions.index(name)
        if position < len(self.node.args):
            self.node.update_arg(position, value)
        else:
            self.node.update_kwarg(name, value)

    def tensors(self) -> Iterator[Node]:
        """Every node among the arguments that yields a tensor, in order."""
        for value in self.arguments.values():
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, Node) and isinstance(item.meta.get("val"), Tensor):
                    yield item


def call_of(node: Node) -> Call | None:
    """The node as an operator call; None for what is no ATen operator."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return None
    op, names, defaults = _signature(target)
    arguments = defaults | dict(zip(names, node.args, strict=False)) | node.kwargs
    return Call(node=node, op=op, arguments=arguments, positions=names)


@cache
def _signature(target: torch._ops.OpOverload) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """The operator's name without the underscore of in-place ones, its arguments' names and defaults."""
    schema = target._schema
    base = schema.name.split("::")[-1]
    inplace = base.endswith("_") and not base.endswith("__")
    # None keeps the place of a required argument, so that arguments come in the order of the signature.
    defaults = {a.name: a.default_value if a.has_default_value() else None for a in schema.arguments}
    return base[:-1] if inplace else base, tuple(defaults), defaults


def attribute(module: nn.Module, name: str) -> Any:
    """What a `get_attr` node reads: the attribute at a dotted path."""
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def place_of(node: Node) -> str:
    """`softmax_1 in blocks.0.attn`: the node, and the layer that it came from where that is known."""
    layers = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(layers[-1][0]) if layers else ""
    return f"{node.name} in {path}" if path else node.name


class Sizes:
    """Numbers for symbolic sizes; one prime a symbol, the same throughout a graph."""

    def __init__(self) -> None:
        self._symbols: dict[str, int] = {}
        self._known: dict[Any, int] = {}

    def shape(self, value: Tensor) -> tuple[int, ...]:
        """The shape of a fake tensor in numbers."""
        return tuple([size if type(size) is int else self.number(size) for size in value.shape])

    def number(self, size: Any) -> int:
        """A size in numbers."""
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression not in self._known:
            for symbol in sorted(expression.free_symbols, key=str):
                self._symbols.setdefault(str(symbol), _PRIMES[len(self._symbols) % len(_PRIMES)])
            numbers = {s: self._symbols[str(s)] for s in expression.free_symbols}
            self._known[expression] = int(expression.subs(numbers))
        return self._known[expression]


def plain(shape: Sequence[int]) -> Axes:
    """A shape of which nothing may be removed."""
    return Axes(shape=tuple(shape), labels=(None,) * len(shape))
