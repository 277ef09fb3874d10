"""Interpolative decomposition: some filters, and every other one as a combination of these.

Filters are chosen one by one, each the one that those before explain least (pivoted Cholesky of their inner
products, the order of a column-pivoted QR). A unit's score is the energy that was unexplained when its turn
came, as a share of all. W = T W_kept; the second factor T goes into the next layer's weights, so that it gets
what it got before, exactly where filters depend on each other linearly and nothing bends in between.
Source: Liberty et al., "Randomized algorithms for the low-rank approximation of matrices", PNAS 2007; as a
baseline in Lemaire et al., "Structured Pruning of Neural Networks with Budget-Aware Regularization", CVPR
2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from toolchain.contracts import Criterion, Evidence
from toolchain.prune.filters import Keep, scored, taken_over
from toolchain.values import Channels, Program

LEAST: Final = 1e-12
"""Share of the energy below which what is left of a filter is rounding."""


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del evidence
    return scored(program, channels, unexplained)


def unexplained(rows: Tensor) -> Tensor:
    """The share of all energy in each row [units] that rows chosen before it leave unexplained."""
    gram = rows @ rows.T
    left, total = gram.diagonal().clone(), float(gram.diagonal().sum())
    factor = torch.zeros_like(gram)
    scores = torch.zeros_like(left)
    free = torch.ones(len(left), dtype=torch.bool)
    for step in range(len(left)):
        pick = int(torch.where(free, left, -1.0).argmax())
        energy = float(left[pick])
        if energy <= LEAST * total:
            break
        scores[pick] = energy / total
        column = (gram[:, pick] - factor[:, :step] @ factor[pick, :step]) / energy**0.5
        factor[:, step] = column
        left = (left - column.square()).clamp_min(0)
        free[pick] = False
    return scores


def combination(rows: Tensor, kept: Sequence[int]) -> Tensor:
    """The kept rows' shares in every row [kept, units], by least squares; each kept one is itself."""
    chosen = rows[list(kept)]
    shares: Tensor = torch.linalg.lstsq(chosen.T, rows.T, driver="gelsd").solution
    shares[:, list(kept)] = torch.eye(len(kept), dtype=rows.dtype)
    return shares


def _carry(program: Program, channels: Channels, keep: Keep) -> Program:
    return taken_over(program, channels, keep, combination)


CRITERION: Final = Criterion(
    name="interpolative",
    summary="filters that the others do not combine to; their shares go into the next layer; needs no data",
    needs_data=False,
    score=_score,
    carry=_carry,
)
