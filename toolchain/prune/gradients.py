"""Gradients of the loss with respect to weights, on small batches in eval mode."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from toolchain.program.switching import switch
from toolchain.values import Program

if TYPE_CHECKING:
    from toolchain.contracts import Batch

_BATCH: Final = 8
"""Samples to a gradient: small, since squares of gradients are averaged over batches."""


def backward_passes(
    program: Program, batches: Iterable[Batch], wanted: Collection[str]
) -> Iterator[dict[str, nn.Parameter]]:
    """After each small batch, the `wanted` parameters of a copy of the network with their gradients."""
    network = switch(program, training=False)
    named = dict(network.named_parameters())
    for name, weight in named.items():
        weight.requires_grad_(name in wanted)
    chosen = {name: weight for name, weight in named.items() if name in wanted}
    for inputs, target in batches:
        for start in range(0, len(target), _BATCH):
            part = slice(start, start + _BATCH)
            network.zero_grad(set_to_none=True)
            torch.autograd.backward(_loss(network(*(x[part] for x in inputs)), target[part]))
            yield chosen


def _loss(output: Tensor | tuple[Tensor, ...] | list[Tensor], target: Tensor) -> Tensor:
    """Cross entropy for class targets, else mean squared error, on the first output."""
    first = output if isinstance(output, Tensor) else output[0]
    if target.dtype in (torch.int64, torch.int32):
        return cross_entropy(first, target.long())
    return mse_loss(first, target.to(first.dtype))
