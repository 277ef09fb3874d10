"""No learning: every group as narrow as every other one, its units chosen by the criterion.

What the source documents compare with: with `--criterion random` their "Random", with `--criterion magnitude`
their "Weight Magnitude". The planner chooses widths group by group; this shows what that is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from toolchain.train.lesson import Learner, Lesson, Verdicts


def _judge(lesson: Lesson, scores: Mapping[str, tuple[float, ...]]) -> Verdicts:
    widths = {group.name: group.size for group in lesson.channels.groups}
    return Verdicts(scores=scores, blocks={}, widths=widths)


LEARNER: Final = Learner(
    name="uniform",
    summary="the same share of every group, units by the criterion: no training",
    begin=None,
    judge=_judge,
    penalizes=False,
)
