"""Batch normalisation over a batch of which every process has a share: with the statistics of all of it.

The batch is as large as in one process, so the shares are small; statistics of a share alone would be
noisier the more processes there are. Source: as `torch.nn.SyncBatchNorm`, for the operator of an exported
graph and on any device; means and variances are put together by Chan, Golub and LeVeque's formula, 1979.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

_TRAINING = 5
"""Position in aten.batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn)."""


@dataclass
class Sharing:
    """How the shares of a batch are brought together: this process's number, how many, the sum over all.

    `counted` is False where a process has no samples of the batch and computes with others in their place.
    """

    rank: int
    size: int
    total: Callable[[Tensor], Tensor]
    counted: bool = True


def synchronised(module: GraphModule, sharing: Sharing) -> GraphModule:
    """A module on the same parameters and buffers whose batch norms see the whole batch."""

    def normalise(x: Tensor, *arguments: Any) -> Tensor:
        return _batch_norm(sharing, x, *arguments)

    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default and node.args[_TRAINING]:
            node.target = normalise
    return GraphModule(module, graph)


def _batch_norm(
    sharing: Sharing,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> Tensor:
    """As aten.batch_norm in training: x [n, c, ...]; running statistics are moved in place."""
    del training, cudnn
    result, here, spread, count = _Normalised.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, eps, sharing
    )
    if mean is not None and var is not None:
        with torch.no_grad():
            mean.lerp_(here.to(mean.dtype), momentum)
            var.lerp_((spread * count / (count - 1).clamp_min(1)).to(var.dtype), momentum)
    normalised: Tensor = result
    return normalised


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, sharing: Sharing
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The output, and of the whole batch: means [c], variances [c], the number of elements [1]."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [i for i in range(x.dim()) if i != 1]
        deviation, own = torch.var_mean(wide, axes, correction=0)
        count = wide.new_tensor([x.numel() // x.shape[1]]) * sharing.counted
        rows = wide.new_zeros(sharing.size, 2 * len(own) + 1)
        rows[sharing.rank] = torch.cat([own, deviation, count])
        rows = sharing.total(rows)
        means, deviations, counts = rows[:, : len(own)], rows[:, len(own) : -1], rows[:, -1:]
        whole = counts.sum()
        mean = (means * counts).sum(0) / whole
        var = ((deviations + (means - mean).square()) * counts).sum(0) / whole
        scale = (var + eps).rsqrt()
        shape = [1, -1] + [1] * (x.dim() - 2)
        factor = scale if weight is None else scale * weight
        shift = -mean * factor if bias is None else bias - mean * factor
        ctx.save_for_backward(x, weight, mean, scale, whole)
        ctx.sharing, ctx.affine = sharing, (weight is not None, bias is not None)
        ctx.mark_non_differentiable(mean, var, whole)
        return (wide * factor.view(shape) + shift.view(shape)).to(x.dtype), mean, var, whole

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes of x, weight and bias; those of weight and bias are this share's."""
        x, weight, mean, scale, whole = ctx.saved_tensors
        axes = [i for i in range(x.dim()) if i != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        slope = slope.to(mean.dtype)
        normal = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        sums = torch.stack([slope.sum(axes), (slope * normal).sum(axes)])
        both = ctx.sharing.total(sums * ctx.sharing.counted) / whole
        factor = scale if weight is None else scale * weight
        inner = (slope - both[0].view(shape) - normal * both[1].view(shape)) * ctx.sharing.counted
        has_weight, has_bias = ctx.affine
        return (
            (inner * factor.view(shape)).to(x.dtype),
            sums[1] if has_weight else None,
            sums[0] if has_bias else None,
            None,
            None,
        )
