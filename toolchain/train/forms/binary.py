"""Binary weights: -a or a, with a scale a for every output channel, as XNOR-Net's weights.

The sign of each weight, and the mean magnitude of its channel: the closest such weights. Activations stay
real. The first and the last layer keep a palette of 8 bits.
Source: Rastegari et al., "XNOR-Net", ECCV 2016, section 3.1.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from toolchain.train.constraint import Constraint, Form, Shape
from toolchain.train.latent import Latent, scale_of
from toolchain.values import Program


def binary(weight: Tensor) -> Tensor:
    """The binary weights of a layer's [out, ...]; of binary weights, these."""
    positive = weight >= 0
    scale = scale_of(weight, torch.ones_like(weight, dtype=torch.bool))
    return torch.where(positive, scale, -scale)


def _read(text: str) -> None:
    if text:
        raise ValueError("binary takes nothing behind its name")


def _begin(program: Program, shape: Shape) -> Constraint:
    del program
    return Latent(shape.inner, "binary", binary)


FORM: Final = Form(
    name="binary",
    summary="-a or a, a scale for every output channel",
    takes="",
    read=_read,
    begin=_begin,
    normed=True,
    table=1,
)
