"""Filter vector quantization: like filters fall together, one of each cluster stays for all of them.

Clusters grow by joining, again and again, the two whose joining adds least to the squared distance of filters
from their cluster's centre (Ward), so that one order serves all widths. Of a joint cluster the unit nearest
the centre stays; the score of the others is what the joining added, as a share of all energy. The next layer
hears of the one that stays what it heard of its whole cluster.
Source: Gong et al., "Compressing deep convolutional networks using vector quantization", 2014, of whole
filters as a baseline in Lemaire et al., CVPR 2019; Ward, "Hierarchical Grouping to Optimize an Objective
Function", 1963.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from toolchain.contracts import Criterion, Evidence
from toolchain.prune.filters import Keep, scored, taken_over
from toolchain.values import Channels, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del evidence
    return scored(program, channels, joined)


def joined(rows: Tensor) -> Tensor:
    """The share of all energy that was added when a unit joined a cluster and did not stay [units].

    Never falling along the joinings; the last one to stay has the score of what is behind the last joining.
    """
    total = float(rows.square().sum())
    centres, sizes = rows.clone(), torch.ones(len(rows), dtype=rows.dtype)
    there = torch.ones(len(rows), dtype=torch.bool)
    stays = list(range(len(rows)))
    scores = torch.zeros(len(rows), dtype=rows.dtype)
    added = torch.cdist(rows, rows).square() / 2
    added.fill_diagonal_(torch.inf)
    level = 0.0
    for _ in range(len(rows) - 1):
        first, second = divmod(int(added.argmin()), len(rows))
        level = max(level, float(added[first, second]))
        size = sizes[first] + sizes[second]
        centre = (sizes[first] * centres[first] + sizes[second] * centres[second]) / size
        a, b = stays[first], stays[second]
        nearer, goes = (a, b) if (rows[a] - centre).norm() <= (rows[b] - centre).norm() else (b, a)
        scores[goes] = level / total if total else 0.0
        centres[first], sizes[first], stays[first], there[second] = centre, size, nearer, False
        distance = (centres - centre).square().sum(1) * sizes * size / (sizes + size)
        distance[~there] = torch.inf
        distance[first] = torch.inf
        added[first], added[:, first] = distance, distance
        added[second], added[:, second] = torch.inf, torch.inf
    last = stays[int(there.nonzero()[0])]
    scores[last] = (level + float(rows[last].square().sum())) / total if total else 0.0
    return scores


def cluster(rows: Tensor, kept: Sequence[int]) -> Tensor:
    """1 where a kept row is the nearest one to a row [kept, units]; each kept one is its own."""
    near = torch.cdist(rows, rows[list(kept)])
    near[list(kept), range(len(kept))] = -1.0
    return torch.nn.functional.one_hot(near.argmin(1), len(kept)).T.to(rows.dtype)


def _carry(program: Program, channels: Channels, keep: Keep) -> Program:
    return taken_over(program, channels, keep, cluster)


CRITERION: Final = Criterion(
    name="vector-quantization",
    summary="one filter of each cluster; the next layer hears it for all; needs no data",
    needs_data=False,
    score=_score,
    carry=_carry,
)
