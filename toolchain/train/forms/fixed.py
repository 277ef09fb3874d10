"""Fixed point IL.FL: multiples of 2^-FL from -2^(IL-1) to 2^(IL-1) - 2^-FL, IL counting the sign.

Weights are on the grid at every step of fine-tuning: what the optimizer made of them is rounded, to the
nearest multiple, or up or down with the probability of its nearness (without bias: steps far under the grid's
width then still count on average, which the nearest multiple makes nothing of).
Source: Gupta et al., "Deep Learning with Limited Numerical Precision", ICML 2015, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from toolchain.train.constraint import Constraint, Form, Shape, tensors_of
from toolchain.values import Program

MOST_BITS: Final = 14
"""In all: more give more values than the entropy coder takes, and nothing over fp16."""


class OnGrid(Constraint):
    """Weights that are multiples of 2^-`after`."""

    def __init__(self, program: Program, names: Sequence[str], shape: Shape) -> None:
        self._before, self._after = shape.setting
        self._rounding, self._seed = shape.rounding, shape.seed
        super().__init__(names, f"fixed {self._before}.{self._after} {self._rounding} {shape.sparse}")
        self._zeros = {n: w == 0 for n, w in tensors_of(program, names).items()} if shape.sparse else {}

    def start(self, module: nn.Module) -> None:
        """Rounded; where at random, by a generator of its own."""
        generator = torch.Generator().manual_seed(self._seed)
        self._round(module, generator)

    def settle(self, module: nn.Module) -> None:
        """What a step changed, rounded; zeros of a sparse network stay."""
        self._round(module, None)

    def rest(self, module: nn.Module) -> None:
        """To the nearest multiple: an average of weights is on no grid."""
        for weight in self.weights(module).values():
            weight.copy_(fixed(weight, self._before, self._after))

    def _round(self, module: nn.Module, generator: torch.Generator | None) -> None:
        for name, weight in self.weights(module).items():
            stochastic = self._rounding == "stochastic"
            rounded = fixed(weight, self._before, self._after, stochastic=stochastic, generator=generator)
            weight.copy_(rounded)
            if name in self._zeros:
                weight[self._zeros[name].to(weight.device)] = 0


def fixed(
    values: Tensor,
    before: int,
    after: int,
    *,
    stochastic: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Values in fixed point: `before` bits, the sign among them, before the point and `after` behind it."""
    step = 2.0**-after
    scaled = values.double() / step
    if stochastic:
        draw = torch.rand(values.shape, generator=generator, dtype=torch.float64)
        whole = torch.floor(scaled + draw.to(values.device))
    else:
        whole = torch.floor(scaled + 0.5)
    top = 2.0 ** (before - 1 + after)
    return (whole.clamp(-top, top - 1) * step + 0.0).to(values.dtype)


def _read(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.(\d+)", text)
    if not found or int(found[1]) < 1 or not 2 <= int(found[1]) + int(found[2]) <= MOST_BITS:
        raise ValueError(f"fixed point is IL.FL, IL at least 1, 2 to {MOST_BITS} bits together")
    return int(found[1]), int(found[2])


def _begin(program: Program, shape: Shape) -> Constraint:
    return OnGrid(program, (*shape.inner, *shape.edges), shape)


FORM: Final = Form(
    name="fixed",
    summary="fixed point, IL bits before the point and FL behind it",
    takes="IL.FL",
    read=_read,
    begin=_begin,
)
