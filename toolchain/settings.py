"""Settings that belong to one part of a run, free of heavy imports; the rest is in `values.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

STORED: Final = "edgefit.storage"
"""The entry in a file's metadata that says in which form its weights are stored."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the network's input: RGB in 0-1, resized to [h, w], then (x - mean) / std."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resize: tuple[int, int] | None = None
    source: str = "default: ImageNet values"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Fine-tuning settings. `temperature` and `distil_weight` are those of knowledge distillation.

    `schedule` says when units go: all before the first step (`one-shot`), or bit by bit. `rate` is the course
    of the learning rate, `clip` the largest norm of a gradient, `smoothing` the share of the labels that is
    spread over all classes, `average` the weight of what was in a moving average of the weights (0: none),
    `half` asks for bfloat16 where the device has it, `log` is a CSV file to which every epoch is added.
    """

    epochs: int = 1
    lr: float = 0.01
    batch_size: int = 128
    temperature: float = 4.0
    distil_weight: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True
    seed: int = 0
    schedule: str = "one-shot"
    rate: Literal["cosine", "one-cycle"] = "cosine"
    clip: float = 5.0
    smoothing: float = 0.0
    average: float = 0.0
    half: bool = False
    log: Path | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How weights are stored, besides the files that runtimes open.

    `form` names a form and its setting (`palette:5`). `sparsity` is the share of weights that become zero
    first, by and by with `schedule`. `run` output channels share a palette; None: all of a layer's.
    `epochs` are those of each part that is fine-tuned.
    """

    form: str
    sparsity: float = 0.0
    schedule: str = "agp"
    run: int | None = None
    rounding: Literal["nearest", "stochastic"] = "nearest"
    epochs: int = 2
