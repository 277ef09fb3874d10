"""The barrier of budget-aware regularization, and the budget that moves while the network learns.

Source: Lemaire, Achkar and Jodoin, "Structured Pruning of Neural Networks with Budget-Aware Regularization",
CVPR 2019, eq. 3.5 and 3.7 of the thesis that it became.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

COMFORT: Final = 1e-4
"""How far under the budget the barrier ends, as a share of what the whole network uses."""
STEEP: Final = 10.0
"""Steepness of the sigmoid transition: 0.7 % of the way is made in the first tenth, 98 % by the last."""
QUICK: Final = 5.0
"""Decay of the exponential transition: 92 % of the way is made in the first half."""


def barrier(volume: float, comfortable: float, budget: float) -> float:
    """f(V, a, b): 0 up to a, (V - a)^2 / ((b - V) (b - a)) below b, infinite from b on."""
    if volume <= comfortable:
        return 0.0
    if volume >= budget:
        return math.inf
    return (volume - comfortable) ** 2 / ((budget - volume) * (budget - comfortable))


def margins(whole: float, final: float, done: float, transition: str) -> tuple[float, float]:
    """(a, b) after the share `done` of the training: b moves from `whole` to `final`, a stays under `final`.

    Args:
        whole: what the unpruned network uses.
        final: the budget at the end.
        done: share of the training, 0-1.
        transition: a name of `TRANSITIONS`.
    """
    share = TRANSITIONS[transition](done)
    return final - COMFORT * whole, (1 - share) * whole + share * final


def _sigmoid(done: float) -> float:
    """Slow, fast, slow."""
    low, high = _logistic(-STEEP / 2), _logistic(STEEP / 2)
    return (_logistic(STEEP * (done - 0.5)) - low) / (high - low)


def _exponential(done: float) -> float:
    """Fast, then slower and slower."""
    return (1 - math.exp(-QUICK * done)) / (1 - math.exp(-QUICK))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


TRANSITIONS: Final[Mapping[str, Callable[[float], float]]] = {
    "sigmoid": _sigmoid,
    "linear": lambda done: done,
    "exponential": _exponential,
}
"""T(i): the share of the way from the whole network to the budget, from 0 at the start to 1 at the end."""
