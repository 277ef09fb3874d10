"""Metrics of a classifier on unbalanced classes or of a segmenter, from the confusion matrix of all samples.

As in the evaluation of MIO-TCD (Luo et al., "MIO-TCD: A new benchmark dataset for vehicle classification and
localization", IEEE TIP 2018), and the intersection over union of the PASCAL VOC challenge. All values are per
cent. Classes without samples (or never predicted) have no recall (or precision) and do not enter the means; a
class without either has no intersection over union.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

IGNORED: Final = -100
"""The class number of what is not judged: what torch's cross entropy passes over."""


def confusion(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """How many samples of class i were called class j: [classes, classes], float64."""
    counted = target != IGNORED
    cells = torch.bincount(target[counted].long() * classes + predicted[counted], minlength=classes**2)
    return cells.reshape(classes, classes).double()


def mean_recall(matrix: Tensor) -> float:
    """The mean over classes of the share of its samples that were recognised."""
    there = matrix.sum(1)
    return 100.0 * float((matrix.diagonal()[there > 0] / there[there > 0]).mean())


def mean_precision(matrix: Tensor) -> float:
    """The mean over classes of the share of what was called so that it is."""
    called = matrix.sum(0)
    return 100.0 * float((matrix.diagonal()[called > 0] / called[called > 0]).mean())


def kappa(matrix: Tensor) -> float:
    """Cohen's (accuracy - p) / (1 - p), p the accuracy by chance with these frequencies; 0 where p is 1."""
    total = matrix.sum()
    accuracy = float(matrix.diagonal().sum() / total)
    chance = float((matrix.sum(0) * matrix.sum(1)).sum() / total**2)
    return 100.0 * (accuracy - chance) / (1.0 - chance) if chance < 1.0 else 0.0


def mean_iou(matrix: Tensor) -> float:
    """The mean over classes of intersection over union: right, over what is of the class or was called so."""
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return 100.0 * float((matrix.diagonal()[union > 0] / union[union > 0]).mean())


SUMMARIES: Final[Mapping[str, Callable[[Tensor], float]]] = {
    "kappa": kappa,
    "mean-recall": mean_recall,
    "mean-precision": mean_precision,
    "miou": mean_iou,
}
