"""Two models compared by paired trials: the interval of their ratio, at any number of looks.

A pair is one trial of each model, measured in turns; its number is the logarithm of the ratio of the two
trials' medians. Both models of a pair meet the same disturbances and the order alternates, so the numbers
scatter symmetrically around the true ratio, which is what the signed-rank interval needs (Hodges and Lehmann
1963, "Estimates of location based on rank tests"; Hollander and Wolfe, "Nonparametric Statistical Methods",
3.3: the interval lies between order statistics of the pairwise means). No normal distribution is assumed.

Looking again and again would make false alarms likely. Look number k therefore gets its own share of the
error, `alpha / (k (k + 1))`. The shares of all looks add up to `alpha`, so by Boole's inequality the
intervals of all looks, however many, hold together with probability 1 - alpha: alpha spending (Lan and DeMets
1983, "Discrete sequential boundaries for clinical trials") with the stitching over growing looks of Howard,
Ramdas, McAuliffe and Sekhon (2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences").
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

from toolchain.latency.intervals import Interval

ALPHA: Final = 0.05
"""Error of all looks together: that any lower bound exceeds the true ratio has at most half of it."""
BLOCK: Final = 8
"""Pairs measured in one process: the first look. Seven are the fewest that give an interval there."""
GROWTH: Final = 1.5
"""Each look has this many times the pairs of the one before, in whole blocks."""
_EXACT: Final = 300
"""Up to here the signed-rank distribution is counted; beyond, its normal approximation is as good."""


def look_sizes(looks: int) -> tuple[int, ...]:
    """Numbers of pairs at the first `looks` looks: 8, 16, 24, 40, 64, 96, 144, ..."""
    sizes = [BLOCK]
    while len(sizes) < looks:
        blocks = max(sizes[-1] // BLOCK + 1, math.ceil(GROWTH * sizes[-1] / BLOCK))
        sizes.append(BLOCK * blocks)
    return tuple(sizes)


def spent(look: int) -> float:
    """The share of `ALPHA` that look number `look` (from 1) uses up."""
    return ALPHA / (look * (look + 1))


def ratio_interval(log_ratios: Sequence[float], alpha: float) -> Interval:
    """The ratio exp(theta) that pairs scatter around, with its interval of level 1 - alpha.

    The value is the Hodges-Lehmann estimate. Too few pairs for `alpha` give the interval (0, infinity).
    """
    values = np.asarray(log_ratios, dtype=np.float64)
    rows, columns = np.triu_indices(len(values))
    walsh = np.sort((values[rows] + values[columns]) / 2)
    middle = float(np.exp(np.median(walsh)))
    outside = _most_outside(len(values), alpha / 2)
    if outside < 0:
        return Interval(value=middle, low=0.0, high=math.inf)
    low, high = walsh[outside], walsh[len(walsh) - 1 - outside]
    return Interval(value=middle, low=float(np.exp(low)), high=float(np.exp(high)))


def _most_outside(n: int, tail: float) -> int:
    """The largest k with P(W <= k) <= tail for the signed-rank statistic W of n values; -1: there is none."""
    if n > _EXACT:
        mean, deviation = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(mean + NormalDist().inv_cdf(tail) * deviation - 0.5)
    cumulated = np.cumsum(_rank_sums(n)) / 2.0**n
    return int(np.searchsorted(cumulated, tail, side="right")) - 1


@functools.cache
def _rank_sums(n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How many of the 2^n choices of signs give each rank sum 0 .. n (n + 1) / 2."""
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1.0
    for rank in range(1, n + 1):
        counts[rank:] += counts[:-rank].copy()
    return counts
