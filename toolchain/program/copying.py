"""Copies of a graph module that share nothing with the original but what is constant.

Much quicker than `copy.deepcopy`: tensors are made once, in the shape they are wanted in, and Python code is
generated from the graph when the copy is first run, not before it has been rewritten.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node

_GENERATED = ("forward", "_code")


def duplicate(
    module: GraphModule, tensor: Callable[[Tensor], Tensor]
) -> tuple[GraphModule, dict[Node, Node]]:
    """A copy of `module`, to be rewritten before it is run, and the original of each of its nodes.

    Args:
        module: left as it is.
        tensor: gives the copy of a parameter, buffer or constant; called once for each, shared or not.
    """
    made: dict[int, Tensor] = {}

    def copied(value: Tensor) -> Tensor:
        if id(value) not in made:
            made[id(value)] = tensor(value)
        return made[id(value)]

    result: GraphModule = GraphModule.__new__(GraphModule)
    _fill(result, module, copied)
    nodes: dict[Any, Any] = {}
    result._graph = copy.deepcopy(module.graph, nodes)
    result._graph.owning_module = result
    type(result).__name__ = type(module).__name__
    for name in _GENERATED:
        # Every graph module has a class of its own; recompiling replaces both.
        setattr(type(result), name, _Generated(name))
    origin = dict(zip(result.graph.nodes, module.graph.nodes, strict=True))
    return result, origin


class _Generated:
    """What `recompile` generates from the graph, generated when it is first asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, module: GraphModule | None, owner: type) -> Any:
        if module is None:
            return self
        module.recompile()
        return getattr(module, self.name)


def _fill(result: nn.Module, module: nn.Module, copied: Callable[[Tensor], Tensor]) -> None:
    """Give `result` the attributes of `module`: tensors and submodules copied, the rest shared."""
    state = result.__dict__
    for name, value in module.__dict__.items():
        if isinstance(value, dict):
            state[name] = {k: copied(v) if isinstance(v, Tensor) else v for k, v in value.items()}
        elif isinstance(value, Tensor):
            state[name] = copied(value)
        elif name in _GENERATED:
            continue
        else:
            state[name] = copy.copy(value) if isinstance(value, list | set) else value
    for name, part in module._modules.items():
        if part is not None:
            state["_modules"][name] = _container(part, copied)


def _container(module: nn.Module, copied: Callable[[Tensor], Tensor]) -> nn.Module:
    """The copy of a submodule, which only holds tensors; one that is a graph of its own is deep-copied."""
    if isinstance(module, GraphModule):
        return copy.deepcopy(module)
    result = module.__new__(type(module))
    _fill(result, module, copied)
    return result
