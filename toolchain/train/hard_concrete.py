"""The hard-concrete distribution: a gate in [0, 1] that is exactly 0 or 1 with some probability.

    u ~ U(0, 1)
    s = sigmoid((log u - log(1 - u) + log_alpha) / beta)
    z = clamp(s (zeta - gamma) + gamma, 0, 1)

Source: Louizos, Welling and Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018;
constants as in budget-aware regularization (Lemaire et al., CVPR 2019).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import softplus

BETA: Final = 2 / 3
GAMMA: Final = -0.1
ZETA: Final = 1.1


def drawn(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """The gates for uniform draws in (0, 1) of the same shape; differentiable in `log_alpha`."""
    return _stretched(torch.logit(uniform) + log_alpha)


def sampled(log_alpha: Tensor) -> Tensor:
    """The gates for draws of torch's generator."""
    tiny = torch.finfo(log_alpha.dtype).eps
    return drawn(log_alpha, torch.rand(log_alpha.shape).clamp(tiny, 1 - tiny))


def at_rest(log_alpha: Tensor) -> Tensor:
    """The gates with `u` at its mean, as they are in inference."""
    return _stretched(log_alpha)


def survival(log_alpha: Tensor, threshold: float = 0.0) -> Tensor:
    """P(z > threshold) for a threshold in [0, 1): how likely a gate is open at all, where it is 0.

    A gate at rest is open exactly where this probability is above a half.
    """
    share = (threshold - GAMMA) / (ZETA - GAMMA)
    return torch.sigmoid(log_alpha - BETA * math.log(share / (1 - share)))


def surprise(log_alpha: Tensor) -> Tensor:
    """-log P(z = 0): the nats by which closing the gate contradicts what it has learned."""
    return softplus(log_alpha - BETA * math.log(-GAMMA / ZETA))


def _stretched(logits: Tensor) -> Tensor:
    return torch.clamp(torch.sigmoid(logits / BETA) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)
