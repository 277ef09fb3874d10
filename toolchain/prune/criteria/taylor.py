"""First-order Taylor (empirical Fisher): the expected squared change of the loss when a unit is gated off.

A gate z on a unit, placed where its consumers read it, has `dL/dz = sum(W * dL/dW)` over the consumers'
weights that read the unit, exactly, because a convolution or matrix product is linear in each input channel.
The score is the mean over small batches of `(dL/dz)^2`. Where no weight reads a unit along its input
dimension (attention products, outputs), the producers' parameters stand in. The network runs in eval mode:
statistics are fixed, nothing is updated.
Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, eq. 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from toolchain.contracts import Criterion, Evidence
from toolchain.errors import InputError
from toolchain.program.capture import switch
from toolchain.program.slices import unit_sums
from toolchain.values import Channels, Group, Member, Program

_BATCH = 8


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    if not evidence.batches:
        raise InputError("criterion 'taylor' needs data", hint="give --data, or choose --criterion magnitude")
    network = switch(program, training=False)
    named = dict(network.named_parameters())
    readers = {group.name: _readers(group, named) for group in channels.groups}
    wanted = {m.parameter for members in readers.values() for m in members}
    for name, weight in named.items():
        weight.requires_grad_(name in wanted)
    totals = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in channels.groups}
    steps = 0
    for inputs, target in evidence.batches:
        for start in range(0, len(target), _BATCH):
            part = slice(start, start + _BATCH)
            network.zero_grad(set_to_none=True)
            torch.autograd.backward(_loss(network(*(x[part] for x in inputs)), target[part]))
            products = {n: w.detach() * w.grad for n, w in named.items() if w.grad is not None}
            for name, members in readers.items():
                gates = [unit_sums(products[m.parameter], m) for m in members if m.parameter in products]
                if gates:
                    totals[name] += torch.stack(gates).sum(0).double() ** 2
            steps += 1
    return {name: tuple((total / max(steps, 1)).tolist()) for name, total in totals.items()}


def _readers(group: Group, named: Mapping[str, Tensor]) -> tuple[Member, ...]:
    """The members through which the group's units are read; failing those, the ones that produce them."""
    own = [m for m in group.members if m.parameter in named]
    reading = tuple(m for m in own if m.dim == 1 and named[m.parameter].dim() >= 2)
    return reading or tuple(own)


def _loss(output: Tensor | tuple[Tensor, ...] | list[Tensor], target: Tensor) -> Tensor:
    """Cross entropy for class targets, else mean squared error, on the first output."""
    first = output if isinstance(output, Tensor) else output[0]
    if target.dtype in (torch.int64, torch.int32):
        return cross_entropy(first, target.long())
    return torch.nn.functional.mse_loss(first, target.to(first.dtype))


CRITERION: Final = Criterion(
    name="taylor",
    summary="expected squared change of the loss, from gradients on training samples; needs data",
    needs_data=True,
    score=_score,
)
