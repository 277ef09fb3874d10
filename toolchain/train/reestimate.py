"""Batch-norm statistics of a pruned network, estimated anew.

Removing channels shifts what the later layers see; the running means and variances of the original no longer
fit. The average over batches of each batch's own statistics is unbiased, unlike the usual moving average.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain.program.capture import switch
from toolchain.values import Program

if TYPE_CHECKING:
    from toolchain.contracts import Batch

_TRAINING, _MOMENTUM = 5, 6
"""Positions in aten.batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn)."""


def reestimate_statistics(program: Program, batches: Iterable[Batch]) -> Program:
    """A copy of `program` whose running means and variances are averages over `batches`.

    Weights stay; dropout stays off. Without batches or batch norm the copy equals the program.
    """
    network, buffers = adaptive(program)
    totals: dict[str, Tensor] = {}
    count = 0
    with torch.no_grad():
        for inputs, _ in batches:
            network(*inputs)
            count += 1
            for name in buffers:
                value = network.get_buffer(name).double()
                totals[name] = totals.get(name, torch.zeros_like(value)) + value
    module = switch(program, training=False)
    if count:
        for name, total in totals.items():
            module.get_buffer(name).copy_(total / count)
    return replace(program, module=module)


def adaptive(program: Program) -> tuple[GraphModule, frozenset[str]]:
    """A copy whose batch norms use, and remember, each batch's own statistics; and the buffers they keep."""
    network = switch(program, training=False)
    buffers: set[str] = set()
    for node in network.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default and isinstance(node.args[3], Node):
            arguments = list(node.args)
            arguments[_TRAINING], arguments[_MOMENTUM] = True, 1.0
            node.args = tuple(arguments)
            buffers |= {str(n.target) for n in node.args[3:5] if isinstance(n, Node)}
    network.recompile()
    return network, frozenset(buffers)
