"""Reading a program's parameters unit by unit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from toolchain.values import Group, Member, Program


def parameter(program: Program, name: str) -> Tensor:
    """The parameter or buffer called `name` (dotted path), shared, not copied."""
    value: object = program.module
    for part in name.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is not a tensor")
    return value


def unit_sums(values: Tensor, member: Member) -> Tensor:
    """Sum of `values` (shaped like the member's parameter) over each unit's positions: [units]."""
    along = values.movedim(member.dim, 0).flatten(1).sum(1) if values.dim() > 1 else values
    positions = torch.tensor(list(chain.from_iterable(member.index)), dtype=torch.long)
    times = torch.tensor([len(at) for at in member.index], dtype=torch.long)
    owners = torch.repeat_interleave(times)
    sums = torch.zeros(len(member.index), dtype=values.dtype)
    return sums.index_add_(0, owners, along[positions])


def positions(member: Member, units: Sequence[int]) -> Tensor:
    """Positions along the member's dimension that belong to `units`: [n]."""
    return torch.tensor([at for unit in units for at in member.index[unit]], dtype=torch.long)


def energies(program: Program, group: Group) -> tuple[float, ...]:
    """The energy of each unit's weights, per layer divided by the layer's mean, averaged over layers."""
    total = torch.zeros(group.size, dtype=torch.float64)
    counted = 0
    for member in group.members:
        weight = parameter(program, member.parameter)
        if weight.dim() < 2:
            continue
        energy = unit_sums(weight.detach().double() ** 2, member)
        mean = energy.mean()
        if mean > 0:
            total += energy / mean
            counted += 1
    return tuple((total / max(counted, 1)).tolist())
