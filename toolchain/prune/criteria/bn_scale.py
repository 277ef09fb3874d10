"""Batch-norm scale: the magnitude of the factor that batch norm gives each channel.

Per batch norm of a group, |scale| is divided by the layer's mean; the score is the mean over the group's
batch norms. Groups without one are scored by weight energy on the same footing (mean 1).
Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch.fx import Node

from toolchain.contracts import Criterion, Evidence
from toolchain.errors import InputError
from toolchain.program.axes import call_of
from toolchain.program.slices import energies, parameter, unit_sums
from toolchain.values import Channels, Group, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del evidence
    scales = _scales(program)
    if not scales:
        raise InputError(
            "criterion 'bn-scale' needs batch norms with a scale; this network has none",
            hint="choose --criterion magnitude or taylor",
        )
    return {
        group.name: _relative(program, group, scales) or energies(program, group) for group in channels.groups
    }


def _scales(program: Program) -> frozenset[str]:
    """Names of the parameters that are scales of batch norms."""
    calls = [call_of(node) for node in program.module.graph.nodes]
    found = (c["weight"] for c in calls if c is not None and "batch_norm" in c.op)
    return frozenset(str(w.target) for w in found if isinstance(w, Node) and w.op == "get_attr")


def _relative(program: Program, group: Group, scales: frozenset[str]) -> tuple[float, ...]:
    """The mean of |scale| over the group's batch norms, each with a mean of 1; empty where it has none."""
    found: list[torch.Tensor] = []
    for member in group.members:
        if member.parameter in scales:
            sums = unit_sums(parameter(program, member.parameter).detach().double().abs(), member)
            if float(sums.mean()) > 0:
                found.append(sums / sums.mean())
    return tuple(torch.stack(found).mean(0).tolist()) if found else ()


CRITERION: Final = Criterion(
    name="bn-scale",
    summary="magnitude of batch-norm scales, weight energy where there is none; needs no data",
    needs_data=False,
    score=_score,
)
