"""Budget-aware regularization: gates learn under a barrier whose budget moves to the limit.

    loss = (1 - w) CE + w T^2 KL(student/T || teacher/T) + strength * L_S * f(V, a, b)

L_S is what the network is expected to use over the probabilities of its gates being open, f the barrier, all
relative to the whole network. The resource is any that a budget is given for: activation volume as in the
paper, parameters, multiply-accumulates, or the milliseconds of a target. Several budgets have a barrier each.

Where the paper looks at V with the gates that are closed at rest cut off, f looks at the expected V here. The
former does not move before the first gates cross the threshold; in trainings of a few epochs all of them run
for it side by side, the budget falling behind their backs, and close together.
Source: Lemaire, Achkar and Jodoin, "Structured Pruning of Neural Networks with Budget-Aware Regularization",
CVPR 2019.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.fx import GraphModule

from toolchain.train.barrier import barrier, margins
from toolchain.train.gates import Gates
from toolchain.train.lesson import Learner, Lesson

STRENGTH: Final = 0.1
"""Weight of the penalty, relative to the whole network's volume; the weaker, the nearer to the budget."""
CEILING: Final = 1000.0
"""Where the barrier ends: a step may lead over the budget."""


class _Bar(Gates):
    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self._whole = lesson.usage.exact({})

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """The barriers' values times what every resource is expected to be, up to a constant."""
        del module
        expected = self.expected()
        likely = {name: float(count.detach()) for name, count in expected.items()}
        steep = [self._barrier(k, volume, done) for k, volume in enumerate(self.lesson.usage.near(likely))]
        if not any(steep):
            return None
        slopes = self.slopes(likely)
        parts = [
            factor * slope / self._whole[k] * expected[name]
            for k, factor in enumerate(steep)
            for name, slope in slopes[k].items()
            if factor and slope
        ]
        return STRENGTH * sum(parts[1:], parts[0]) if parts else None

    def _barrier(self, k: int, volume: float, done: float) -> float:
        whole = self._whole[k]
        if whole <= 1:  # the whole network holds this limit
            return 0.0
        comfortable, budget = margins(whole, 1.0, done, self.lesson.transition)
        return min(barrier(volume, comfortable, budget), CEILING)


LEARNER: Final = Learner(
    name="bar",
    summary="gates under a barrier whose budget moves to the limit, with distillation",
    begin=_Bar,
)
