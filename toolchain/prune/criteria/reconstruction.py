"""Reconstruction error of the next layers: what of their outputs is lost with a unit.

For a layer y = sum_c W_c * x_c the score of input channel c is E|W_c * x_c|^2 / E|y - b|^2 on real samples,
summed over the layers that read the unit. It is exact per channel, from the second moments of the patches a
kernel sees: E|W_c * x_c|^2 = trace(W_c^T W_c E[p p^T]). Groups that no layer reads (queries and keys) are
scored by their share of the energy where they are put out. Transposed convolutions are not looked at.
Source: Luo et al., "ThiNet", ICCV 2017, eq. 5, for one removed channel at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from toolchain.contracts import Criterion, Evidence
from toolchain.program.windows import windows
from toolchain.prune.listening import Listener, Sight, needed, preferred
from toolchain.values import Channels, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del channels
    listener = Listener(program)
    lost, put_out = listener.zeros(), listener.zeros()
    readers: Counter[str] = Counter()

    def hear(sight: Sight) -> None:
        if sight.weight.shape[1] > 1 or sight.input.shape[sight.channel] == 1:
            shares = contributions(sight) / energy(_without_bias(sight)).clamp(min=1e-300)
            for name, values in listener.read_by(sight, shares).items():
                lost[name] += values
                readers[name] += 1
        own = sight.output.detach().double().movedim(sight.channel, 0).flatten(1).square().mean(1)
        for name, values in listener.put_out_by(sight, own / own.sum().clamp(min=1e-300)).items():
            put_out[name] += values

    parts = listener.listen(needed(evidence, "reconstruction"), hear)
    for totals in (lost, put_out):
        for values in totals.values():
            values /= max(parts, 1)
    return preferred(lost, put_out, readers)


def contributions(sight: Sight) -> Tensor:
    """E|W_c * x_c|^2 of every input channel, summed over output channels, a mean over positions: [c]."""
    x, weight = sight.input.detach(), sight.weight.detach()
    if sight.call.op == "linear":
        moments = x.double().square().flatten(0, -2).mean(0)
        return moments * weight.double().square().sum(0)
    patches = _patches(x, weight, sight.call.arguments)
    moments = torch.einsum("cpk,cpl->ckl", patches, patches).double() / patches.shape[1]
    groups = int(sight.call["groups"])
    kernels = weight.double().reshape(groups, -1, weight.shape[1], moments.shape[-1])
    gram = torch.einsum("gock,gocl->gckl", kernels, kernels).reshape(moments.shape)
    return (moments * gram).sum((1, 2))


def energy(values: Tensor) -> Tensor:
    """The mean over positions of the squared norm over channels (dimension 0)."""
    return values.flatten(1).square().sum(0).mean()


def _without_bias(sight: Sight) -> Tensor:
    """The layer's output without its bias, channels first: [o, positions]."""
    output = sight.output.detach().double().movedim(sight.channel, 0).flatten(1)
    return output if sight.bias is None else output - sight.bias.detach().double()[:, None]


def _patches(x: Tensor, weight: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """What a kernel sees of each channel: [c, positions, kernel elements]."""
    seen = windows(x, weight, arguments)
    return seen.movedim(1, 0).flatten(1, weight.dim() - 1).flatten(2)


CRITERION: Final = Criterion(
    name="reconstruction",
    summary="what the next layers' outputs lose with a unit, on training samples; needs data",
    needs_data=True,
    score=_score,
)
