"""The exact train / eval switch of an exported graph.

`GraphModule.train()` changes nothing, since the mode is a constant argument of every operator that has one.
"""

from __future__ import annotations

import copy
from typing import Final

import torch
from torch.fx import GraphModule, Node

from toolchain.values import Program

_MODE_ARGUMENTS: Final = ("training", "train")
_RUNNING: Final = ("running_mean", "running_var")


def switch(program: Program, *, training: bool) -> GraphModule:
    """A deep copy of the program's module in train or eval mode; probabilities and momenta stay as they are.

    What the network does only in training through Python (`if self.training:`), such as auxiliary heads or
    stochastic depth, is not part of a graph captured in eval mode and does not come back.
    """
    module = copy.deepcopy(program.module)
    for node in module.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            _set_mode(node, training)
    module.recompile()
    module.train(training)
    return module


def _set_mode(node: Node, training: bool) -> None:
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    for position, argument in enumerate(arguments):
        if argument.name in _MODE_ARGUMENTS and str(argument.type) == "bool":
            if not training and _without_statistics(node, [a.name for a in arguments]):
                return
            if position < len(node.args):
                node.update_arg(position, training)
            else:
                node.update_kwarg(argument.name, training)
            return


def _without_statistics(node: Node, names: list[str]) -> bool:
    """A normalisation that tracks no statistics uses those of the batch, in eval mode too."""
    for position, name in enumerate(names):
        if name in _RUNNING:
            value = node.args[position] if position < len(node.args) else node.kwargs.get(name)
            if value is None:
                return True
    return False
