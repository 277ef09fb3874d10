"""Variety: units that do what better ones do already score less; rare ones keep their score.

    score_u * (1 - largest cosine of u's filters with those of a unit of the group that scores higher)

The best of several like filters stays what it was, its doubles are worth next to nothing. Where the source
clusters filters, this asks each for the nearest better one, so that there is no number of clusters to choose.
Source: Hubens et al., "Improve Convolutional Neural Network Pruning by Maximizing Filter Variety", ICIAP
2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from toolchain.contracts import Criterion, Evidence
from toolchain.program.slices import parameter
from toolchain.values import Channels, Group, Program


def varied(criterion: Criterion) -> Criterion:
    """The criterion, its scores lowered by redundancy."""

    def score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
        found = criterion.score(program, channels, evidence)
        return {g.name: rarer(found[g.name], filters(program, g)) for g in channels.groups}

    return replace(
        criterion,
        name=f"{criterion.name}, varied",
        summary=f"{criterion.summary}; less where a better channel is alike",
        score=score,
    )


def rarer(scores: tuple[float, ...], vectors: Tensor | None) -> tuple[float, ...]:
    """Scores of units times their distance from the nearest better one; ties go to the lower number.

    Args:
        scores: one a unit, not negative.
        vectors: the units' filters [units, n]; None leaves the scores as they are.
    """
    if vectors is None:
        return scores
    lengths = vectors.norm(dim=1, keepdim=True)
    unit = vectors / lengths.clamp_min(torch.finfo(vectors.dtype).tiny)
    order = sorted(range(len(scores)), key=lambda u: (-scores[u], u))
    alike = (
        (unit[order] @ unit[order].T).tril(-1).clamp(0.0, 1.0)
    )  # row i: to those before it, which are better
    nearest = alike.max(1).values
    distance = torch.empty_like(nearest)
    distance[torch.tensor(order)] = 1.0 - nearest
    return tuple((torch.tensor(scores, dtype=distance.dtype) * distance).tolist())


def filters(program: Program, group: Group) -> Tensor | None:
    """What makes each unit's channel in every layer that puts it out, each layer of length 1: [units, n].

    None where no layer does so with equally many weights for every unit.
    """
    parts: list[Tensor] = []
    for member in group.members:
        weight = parameter(program, member.parameter).detach()
        counts = {len(places) for places in member.index}
        if member.dim != 0 or weight.dim() < 2 or len(counts) != 1:
            continue
        rows = torch.stack([weight[list(places)].double().flatten() for places in member.index])
        mean = rows.norm(dim=1).mean()
        if mean > 0:
            parts.append(rows / mean)
    return torch.cat(parts, 1) if parts else None
