"""Fitting: coefficients >= 0 that minimise relative errors, shared between devices of one kind.

Devices that run one engine differ mostly by a factor. So coefficients are fitted on all of them together with
a scale and an overhead each; then each device's own coefficients, drawn towards the shared ones. Errors are
weighted down where they are large (iteratively, towards least absolute error): published rows have outliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]
FLOOR = 0.03
"""Relative errors below this count alike: published figures are not better than that."""


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How strongly shared coefficients are drawn to 0 and a device's own to the shared ones.

    `scale` draws devices' scales to 1; groups of less than `fewest` networks have a scale and an overhead
    only; `usual` is the weight of what networks at large have in a term's size, see `solve`.
    """

    shared: float = 1e-4
    own: float = 1e-2
    scale: float = 1e-4
    fewest: int = 8
    usual: float = 1.0


def solve(
    x: Array,
    y: Array,
    *,
    prior: Array | None = None,
    strength: float = 1e-4,
    usual: Array | None = None,
    rounds: int = 12,
) -> Array:
    """c >= 0 with x c near y: relative errors, robust, drawn to `prior` (0 where there is none).

    The pull is relative: `strength` times the squared share of the mean prediction that moves. A term that
    the rows hardly have, but networks at large do (`usual`: amounts per amount of the first term), is pulled
    as if they had it: else a trace of it in one network could set its coefficient.
    """
    a = x / y[:, None]
    size = a.mean(0)
    if usual is not None:
        size = np.maximum(size, usual / np.median(y / x[:, 0]))
    size[size == 0] = 1.0
    a = a / size
    prior = np.zeros(x.shape[1]) if prior is None else prior * size
    pull = np.sqrt(strength * len(y))
    weights = np.ones(len(y))
    found = prior
    for _ in range(rounds):
        root = np.sqrt(weights)
        left = np.vstack([a * root[:, None], pull * np.eye(len(size))])
        found, _ = nnls(left, np.concatenate([root, pull * prior]), maxiter=100 * len(size))
        weights = 1 / np.maximum(np.abs(a @ found - 1), FLOOR)
        weights /= weights.mean()
    return found / size


def together(
    x: Array, y: Array, groups: Sequence[Any], strength: Strength, usual: Array | None = None
) -> dict[Any, Array]:
    """Coefficients of every group; the last column of `x` is the overhead an inference."""
    usual = None if usual is None else strength.usual * usual
    first = None if usual is None else usual[:-1]
    names = sorted(set(groups), key=str)
    member = {name: np.array([g == name for g in groups]) for name in names}
    scale = dict.fromkeys(names, 1.0)
    overhead = dict.fromkeys(names, 0.0)
    shared = np.zeros(x.shape[1])
    if len(names) == 1:
        return {names[0]: solve(x, y, strength=strength.shared, usual=usual)}
    for _ in range(6):
        wide = x.copy()
        for name, mask in member.items():
            wide[mask, :-1] *= scale[name]
        shared = solve(wide[:, :-1], y, strength=strength.shared, usual=first)
        for name, mask in member.items():
            base = np.column_stack([x[mask, :-1] @ shared, np.ones(mask.sum())])
            scale[name], overhead[name] = solve(
                base, y[mask], prior=np.array([1.0, 0.0]), strength=strength.scale
            )
        middle = float(np.median(list(scale.values()))) or 1.0
        scale = {name: max(value / middle, 1e-6) for name, value in scale.items()}
        shared = shared * middle
    own = {}
    for name, mask in member.items():
        prior = np.append(shared * scale[name], overhead[name])
        if len(np.unique(x[mask], axis=0)) >= strength.fewest:
            prior = solve(x[mask], y[mask], prior=prior, strength=strength.own, usual=usual)
        own[name] = prior
    return own


def left_out(
    x: Array,
    y: Array,
    groups: Sequence[Any],
    parts: Sequence[Any],
    strength: Strength,
    usual: Array | None = None,
) -> Array:
    """Predictions of every row by a fit that saw no row of the row's part (its network, or its family).

    NaN where a group has no row left to fit with.
    """
    found = np.full(len(y), np.nan)
    for part in sorted(set(parts)):
        out = np.array([p == part for p in parts])
        rest = [g for g, o in zip(groups, out, strict=True) if not o]
        models = together(x[~out], y[~out], rest, strength, usual)
        for k in np.flatnonzero(out):
            if groups[k] in models:
                found[k] = x[k] @ models[groups[k]]
    return found
