"""Budget-aware regularization: gates learn under a barrier whose budget moves to the limit.

Source: Lemaire, Achkar and Jodoin, "Structured Pruning of Neural Networks with Budget-Aware Regularization",
CVPR 2019; the formulas are in `toolchain/train/budgeted.py`.
"""

from __future__ import annotations

from typing import Final

from toolchain.train.budgeted import Budgeted
from toolchain.train.lesson import Learner

LEARNER: Final = Learner(
    name="bar",
    summary="gates under a barrier whose budget moves to the limit, with distillation",
    begin=Budgeted,
    branches=True,
)
