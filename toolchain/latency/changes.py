"""Where a series of latencies changed: the E-divisive method.

Matteson and James (2014), "A nonparametric approach for multiple change point analysis of multivariate
data", Journal of the American Statistical Association 109: a segment is split where the energy distance
between its two parts is largest, if random permutations of the segment reach that distance seldom enough;
then each part again. MongoDB's performance tests use it (Daly et al. 2020, "The use of change point detection
to identify software performance regressions in a continuous integration system").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

METHOD: Final = "E-divisive (Matteson and James 2014), 999 permutations"
LEAST: Final = 3
"""Values on each side of a change."""
PERMUTATIONS: Final = 999
LEVEL: Final = 0.01

_Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Change:
    """The first value after a change, the medians around it, and how seldom chance splits as clearly."""

    index: int
    before: float
    after: float
    p: float


def changes(values: Sequence[float], *, seed: int = 0) -> tuple[Change, ...]:
    """The changes in `values`, in their order. `seed` draws the permutations: same series, same answer."""
    series = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    found: dict[int, float] = {}
    segments = [(0, len(series))]
    while segments:
        start, end = segments.pop()
        split = _split(series[start:end], rng)
        if split is not None:
            found[start + split[0]] = split[1]
            segments += [(start, start + split[0]), (start + split[0], end)]
    edges = [0, *sorted(found), len(series)]
    return tuple(
        Change(
            index=at,
            before=float(np.median(series[edges[k] : at])),
            after=float(np.median(series[at : edges[k + 2]])),
            p=found[at],
        )
        for k, at in enumerate(sorted(found))
    )


def _split(values: _Matrix, rng: np.random.Generator) -> tuple[int, float] | None:
    """(where the segment falls apart, p) when chance seldom does as well."""
    if len(values) < 2 * LEAST:
        return None
    distances = np.abs(values[:, None] - values[None, :])
    best, where = _best(distances)
    reached = 1
    for _ in range(PERMUTATIONS):
        order = rng.permutation(len(values))
        reached += _best(distances[np.ix_(order, order)])[0] >= best
    p = reached / (PERMUTATIONS + 1)
    return (where, p) if p <= LEVEL else None


def _best(distances: _Matrix) -> tuple[float, int]:
    """The largest scaled energy distance over all splits, and its place."""
    n = len(distances)
    sums = distances.cumsum(0).cumsum(1)  # sums[i, j]: all pairs of the first i + 1 with the first j + 1
    splits = np.arange(LEAST, n - LEAST + 1)
    m, rest = splits.astype(np.float64), (n - splits).astype(np.float64)
    within = sums[splits - 1, splits - 1]
    to_all = sums[splits - 1, n - 1]
    across = to_all - within
    after = sums[n - 1, n - 1] - 2 * to_all + within
    energy = 2 * across / (m * rest) - within / (m * (m - 1)) - after / (rest * (rest - 1))
    scaled = m * rest / n * energy
    place = int(np.argmax(scaled))
    return float(scaled[place]), int(splits[place])
