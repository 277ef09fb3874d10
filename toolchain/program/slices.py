"""Reading a program's parameters unit by unit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from toolchain.values import Member, Program


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
    owners = torch.tensor([u for u, at in enumerate(member.index) for _ in at], dtype=torch.long)
    sums = torch.zeros(len(member.index), dtype=values.dtype)
    return sums.index_add_(0, owners, along[positions])


def positions(member: Member, units: Sequence[int]) -> Tensor:
    """Positions along the member's dimension that belong to `units`: [n]."""
    return torch.tensor([at for unit in units for at in member.index[unit]], dtype=torch.long)
