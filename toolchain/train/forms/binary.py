"""Binary weights: -a or a, with a scale a for every output channel, as XNOR-Net's weights.

The sign of each weight, and the mean magnitude of its channel: the closest such weights. Activations stay
real. The first and the last layer keep a palette of 8 bits.
Source: Rastegari et al., "XNOR-Net", ECCV 2016, section 3.1.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from toolchain.train.constraint import Form, nothing_behind
from toolchain.train.latent import beginning, scale_of


def binary(weight: Tensor) -> Tensor:
    """The binary weights of a layer's [out, ...]; of binary weights, these."""
    positive = weight >= 0
    scale = scale_of(weight, torch.ones_like(weight, dtype=torch.bool))
    return torch.where(positive, scale, -scale)


FORM: Final = Form(
    name="binary",
    summary="-a or a, a scale for every output channel",
    takes="",
    read=nothing_behind("binary"),
    begin=beginning("binary", binary),
    normed=True,
    table=1,
)
