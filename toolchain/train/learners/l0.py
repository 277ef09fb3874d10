"""L0 regularization: gates under a constant price on how many are open, and no budget while it learns.

    loss = CE + strength * sum of P(z > 0) / number of gates

The price is on widths alone, whatever a channel costs, and there is no teacher; the budget is held
afterwards, by closing what was learned to matter least.
Source: Louizos, Welling and Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.fx import GraphModule

from toolchain.train.gates import Gates
from toolchain.train.lesson import Learner, Lesson

STRENGTH: Final = 1.0
"""Nats that the whole network's gates cost."""


class _Priced(Gates):
    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self._total = sum(site.size for site in self.sites)

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """The expected share of open gates, priced."""
        del module, done
        expected = self.expected()
        parts = [expected[site.name] for site in self.sites]
        return self.lesson.strength * STRENGTH / self._total * sum(parts[1:], parts[0]) if parts else None


LEARNER: Final = Learner(
    name="l0",
    summary="gates under a constant price, no budget and no teacher while learning",
    begin=_Priced,
    distils=False,
    branches=True,
)
