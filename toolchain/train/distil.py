"""The loss of training: task loss and knowledge distillation from the original network.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; weights and temperature as in
budget-aware regularization (Lemaire et al., CVPR 2019): `(1-w) CE + w T^2 KL(student/T || teacher/T)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss

from toolchain.errors import InputError
from toolchain.train.metric import as_tuple
from toolchain.values import Training

if TYPE_CHECKING:
    from toolchain.contracts import Batch, Data


def followed_loss(
    student: Callable[..., Any],
    teacher: Callable[..., Any] | None,
    batch: Batch,
    data: Data,
    training: Training,
) -> Tensor:
    """The mean loss of a student on a batch of `data` (0-d), with the teacher's outputs to follow if any.

    Raises:
        InputError: the targets do not fit the network's output.
    """
    inputs, target = batch
    followed = None
    if teacher is not None:
        with torch.no_grad():
            followed = as_tuple(teacher(*inputs))
    try:
        return distillation_loss(
            as_tuple(student(*inputs)),
            followed,
            target,
            temperature=training.temperature,
            weight=training.distil_weight,
            smoothing=training.smoothing,
        )
    except (IndexError, ValueError) as error:
        raise InputError(
            f"{data.name}: the targets do not fit the network's output ({error})",
            hint="check that labels and network belong together",
        ) from error


def mean_loss(total: float, seen: int, data: Data) -> float:
    """An epoch's loss, `total` of `seen` samples.

    Raises:
        InputError: there were none.
    """
    if seen == 0:
        raise InputError(f"{data.name}: the training part is empty", hint="add training samples")
    return total / seen


def distillation_loss(
    student: tuple[Tensor, ...],
    teacher: tuple[Tensor, ...] | None,
    target: Tensor,
    *,
    temperature: float,
    weight: float,
    smoothing: float = 0.0,
) -> Tensor:
    """The mean loss of a batch (0-d).

    The first output is judged: by class scores [n, classes, ...] when the target holds class numbers
    [n, ...], else by mean squared error. Further outputs follow the teacher's by squared error relative to
    their variance. Where target and output do not fit, the teacher alone is followed.
    """
    first = student[0]
    classifies = _classifies(first, target)
    if classifies:
        task: Tensor | None = cross_entropy(first, target.long(), label_smoothing=smoothing)
    elif target.dtype.is_floating_point and target.shape == first.shape:
        task = mse_loss(first, target.to(first.dtype))
    else:
        task = None
    if teacher is None:
        if task is None:
            raise ValueError("without a teacher the target must fit the first output")
        return task
    if classifies:
        follow = temperature**2 * softened_divergence(first, teacher[0], temperature)
    else:
        follow = mse_loss(first, teacher[0])
    for mine, original in zip(student[1:], teacher[1:], strict=True):
        if mine.dtype.is_floating_point:
            follow = follow + mse_loss(mine, original) / original.var(correction=0).clamp_min(1e-12)
    return follow if task is None else (1.0 - weight) * task + weight * follow


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softened class distributions, mean over samples and positions."""
    mine = log_softmax(student / temperature, 1)
    original = log_softmax(teacher / temperature, 1)
    return kl_div(mine, original, reduction="none", log_target=True).sum(1).mean()


def _classifies(output: Tensor, target: Tensor) -> bool:
    if target.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        return False
    return output.dim() >= 2 and output.shape[1] > 1 and target.shape == output[:, 0].shape
