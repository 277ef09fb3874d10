"""Measuring until the answer is clear: the gate's decision on a ratio, free of where the pairs come from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

from toolchain.latency.intervals import Interval
from toolchain.latency.paired import BLOCK, look_sizes, ratio_interval, spent

Answer = Literal["pass", "fail", "inconclusive"]
Measure = Callable[[int], Sequence[float]]
"""Measures this many new pairs in a fresh process and gives the log ratios, candidate over baseline."""

_LOOKS: Final = 40
"""More than any time allows: the last has more than a hundred million pairs."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was known after `pairs` pairs: the ratio with the interval that this look's share allows."""

    pairs: int
    alpha: float
    ratio: Interval


@dataclass(frozen=True, kw_only=True)
class Course:
    """One sequence of looks and the answer it ended in."""

    answer: Answer
    looks: tuple[Look, ...]
    log_ratios: tuple[float, ...]
    seconds: float

    @property
    def ratio(self) -> Interval:
        """The ratio at the last look."""
        return self.looks[-1].ratio


def answer_of(ratio: Interval, limit: float) -> Answer:
    """Fail: the whole interval is above `limit`; pass: all of it is below."""
    if ratio.low > limit:
        return "fail"
    return "pass" if ratio.high < limit else "inconclusive"


def until_clear(
    measure: Measure,
    *,
    limit: float,
    seconds: float,
    enough: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
) -> Course:
    """Look after ever more pairs until the ratio's interval leaves `limit`, or the time is up.

    Args:
        measure: gives new pairs.
        limit: the largest ratio that passes, e.g. 1.05.
        seconds: time allowed. The first block is always measured; another only if it will end in time.
        enough: asked when the ratio is clear: False to go on, for another question is open.
        clock: seconds that only grow.
    """
    start, values, looks = clock(), list[float](), list[Look]()
    sizes = look_sizes(_LOOKS)
    for number in count(1):
        while len(values) < sizes[number - 1]:
            if values and not _fits(clock() - start, len(values), seconds):
                break
            values += measure(BLOCK)
        out_of_time = len(values) < sizes[number - 1]
        if not (out_of_time and looks and looks[-1].pairs == len(values)):
            alpha = spent(number)
            looks.append(Look(pairs=len(values), alpha=alpha, ratio=ratio_interval(values, alpha)))
        answer = answer_of(looks[-1].ratio, limit)
        if out_of_time or (answer != "inconclusive" and enough()):
            break
    return Course(answer=answer, looks=tuple(looks), log_ratios=tuple(values), seconds=clock() - start)


def _fits(elapsed: float, pairs: int, seconds: float) -> bool:
    """Whether one more block ends within `seconds`, as the blocks so far went."""
    return elapsed + elapsed * BLOCK / pairs <= seconds


def log_ratio(candidate_ms: float, baseline_ms: float) -> float:
    """The number of one pair."""
    return math.log(candidate_ms / baseline_ms)
