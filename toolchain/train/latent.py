"""Weights of two or three values, fine-tuned by the real ones behind them.

The network computes with a few values; the gradient with respect to these changes the real weights that they
are made of (straight-through), which are kept only while training goes on.
Source: Courbariaux et al., "BinaryConnect", NeurIPS 2015, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from toolchain.train.constraint import Constraint, Shape
from toolchain.values import Program

EDGE_BITS: Final = 8
"""The first and the last layer keep palettes of so many bits: few weights, and they carry much."""


class Latent(Constraint):
    """The module holds real weights; `values` makes of each [out, ...] what the network computes with."""

    def __init__(self, names: Sequence[str], identity: str, values: Callable[[Tensor], Tensor]) -> None:
        super().__init__(names, identity)
        self._values = values
        self._real: dict[str, Tensor] = {}

    def forward(self, module: nn.Module) -> None:
        """The few values, in place of the real ones."""
        for name, weight in self.weights(module).items():
            self._real[name] = weight.clone()
            weight.copy_(self._values(weight))

    def backward(self, module: nn.Module) -> None:
        """The real ones again, to be changed by the gradients of the few."""
        for name, weight in self.weights(module).items():
            weight.copy_(self._real[name])

    def rest(self, module: nn.Module) -> None:
        """The few values."""
        for weight in self.weights(module).values():
            weight.copy_(self._values(weight))


def beginning(identity: str, values: Callable[[Tensor], Tensor]) -> Callable[[Program, Shape], Constraint]:
    """The `begin` of a form that computes with `values`; the first and the last layer are left alone."""
    return lambda _, shape: Latent(shape.inner, identity, values)


def scale_of(weight: Tensor, where: Tensor) -> Tensor:
    """The mean magnitude of every output channel's weights that are marked [out, 1, ...], rounded to fp16."""
    dims = tuple(range(1, weight.dim()))
    total = (weight.abs() * where).sum(dims, keepdim=True)
    mean = total / where.sum(dims, keepdim=True).clamp_min(1)
    return mean.to(torch.float16).to(weight.dtype)
