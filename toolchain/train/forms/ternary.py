"""Ternary weights: -a, 0 or a, with a scale a for every output channel.

A weight is zero where its magnitude is under 0.7 of the channel's mean magnitude; a is the mean magnitude of
the others: nearly the closest ternary weights. The first and the last layer keep a palette of 8 bits.
Source: Li et al., "Ternary Weight Networks", 2016, eq. 5 and 6.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor

from toolchain.train.constraint import Form, nothing_behind
from toolchain.train.latent import beginning, scale_of

THRESHOLD: Final = 0.7


def ternary(weight: Tensor) -> Tensor:
    """The ternary weights of a layer's [out, ...]; of ternary weights, these."""
    magnitude = weight.abs()
    dims = tuple(range(1, weight.dim()))
    large = magnitude > THRESHOLD * magnitude.mean(dims, keepdim=True)
    return scale_of(weight, large) * weight.sign() * large + 0.0


FORM: Final = Form(
    name="ternary",
    summary="-a, 0 or a, a scale for every output channel",
    takes="",
    read=nothing_behind("ternary"),
    begin=beginning("ternary", ternary),
    normed=True,
    table=1,
)
