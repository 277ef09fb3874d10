"""Budget-aware regularization: gates learn under a barrier whose budget moves to the limit.

    loss = (1 - w) CE + w T^2 KL(student/T || teacher/T) + strength * L_S * f(V, a, b)

L_S is what the network is expected to use over the probabilities of its gates being open, f the barrier, all
relative to the whole network. The resource is any that a budget is given for: activation volume as in the
paper, parameters, multiply-accumulates, or the milliseconds of a target. Several budgets have a barrier each.

Where the paper looks at V with the gates that are closed at rest cut off, f looks at the expected V here. The
former does not move before the first gates cross the threshold; in trainings of a few epochs all of them run
for it side by side, the budget falling behind their backs, and close together.
The weight of the penalty, a constant there, grows here while the expected V is over the moving budget.
Source: Lemaire, Achkar and Jodoin, "Structured Pruning of Neural Networks with Budget-Aware Regularization",
CVPR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor
from torch.fx import GraphModule

from toolchain.train.barrier import barrier, margins
from toolchain.train.gates import Gates
from toolchain.train.lesson import Lesson

STRENGTH: Final = 0.1
"""Weight of the penalty at the start, relative to the whole network's volume."""
CEILING: Final = 100.0
"""Where the barrier ends. Beyond the budget its weight grows: a spike would close all gates alike."""
GROWTH: Final = 15.0
"""Nats by which the weight may grow or shrink in the whole training: tenfold in 15 % of it."""
PATIENCE: Final = 0.05
"""Most that it may in a step: Adam answers with a delay of some ten steps."""
ROOM: Final = 0.9
"""Share of the moving budget under which the weight shrinks, down to what it was at the start."""


class Budgeted(Gates):
    """Gates under a barrier for every resource that has a limit."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self._whole = lesson.usage.exact({})
        self._least = STRENGTH * lesson.strength
        self._weights = [self._least] * len(self._whole)
        self._done = 0.0

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """The barriers' values times what every resource is expected to be, up to a constant."""
        del module
        expected = self.expected()
        likely = {name: float(count.detach()) for name, count in expected.items()}
        passed, self._done = min(GROWTH * max(done - self._done, 0.0), PATIENCE), done
        steep = [self._pressure(k, v, done, passed) for k, v in enumerate(self.lesson.usage.near(likely))]
        if not any(steep):
            return None
        slopes = self.slopes(likely)
        parts = [
            factor * slope / self._whole[k] * expected[name]
            for k, factor in enumerate(steep)
            for name, slope in slopes[k].items()
            if factor and slope
        ]
        return sum(parts[1:], parts[0]) if parts else None

    def state(self) -> dict[str, Any]:
        """The gates, and how much the barriers weigh."""
        return {**super().state(), WEIGHTS: (list(self._weights), self._done)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Those of a checkpoint."""
        super().restore(state)
        self._weights, self._done = list(state[WEIGHTS][0]), state[WEIGHTS][1]

    def _pressure(self, k: int, volume: float, done: float, passed: float) -> float:
        """The barrier of one resource times its weight, which may have changed by `passed` nats meanwhile."""
        whole = self._whole[k]
        if whole <= 1:  # the whole network holds this limit
            return 0.0
        comfortable, budget = margins(whole, 1.0, done, self.lesson.transition)
        if volume >= budget:
            self._weights[k] *= math.exp(passed)
        elif volume < ROOM * budget:
            self._weights[k] = max(self._least, self._weights[k] * math.exp(-passed))
        return self._weights[k] * min(barrier(volume, comfortable, budget), CEILING)


WEIGHTS: Final = "weights of the barriers"
