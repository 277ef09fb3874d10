"""What "good" means for a network: a metric, and its value over a validation set.

One function scores programs and exported files alike: both are a callable from inputs to outputs.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolchain.contracts import Data
from toolchain.errors import InputError
from toolchain.program.capture import switch
from toolchain.train.confusion import IGNORED, SUMMARIES, confusion
from toolchain.values import Program

Runner = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of merit. `mean(outputs, target)` is its mean over the samples of one batch.

    The value over a data set is the mean of the batches weighted by their samples. `unit` is "points"
    (per cent) for the metrics known here and the function's own unit otherwise. Where a data set's value is
    no mean of batches, `counts` of a batch are added up and `summary` is taken of their sum.
    """

    name: str
    mean: Callable[[tuple[Tensor, ...], Tensor], float]
    unit: str = "points"
    higher_is_better: bool = True
    counts: Callable[[tuple[Tensor, ...], Tensor], Tensor] | None = None
    summary: Callable[[Tensor], float] | None = None

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better than `than`."""
        return value > than if self.higher_is_better else value < than

    def lost(self, before: float, after: float) -> float:
        """How much worse `after` is than `before`, whichever direction is better; negative for a gain."""
        return before - after if self.higher_is_better else after - before


@dataclass(frozen=True, kw_only=True)
class Score:
    """The value of metric `name` over `samples` samples."""

    name: str
    value: float
    samples: int
    unit: str = "points"


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    """The tensors of a network's return value, in order."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return tuple(tensor for value in values for tensor in as_tuple(value))


def resolve(spec: str) -> Metric:
    """`top1`, `kappa`, `mean-recall`, `mean-precision`, `miou`, or the user's `package.module:function`.

    The function is called as `function(outputs, target)` with a tuple of output tensors [n, ...] and the
    target [n, ...], and returns the mean over the batch (a number) or one value a sample ([n]). It may carry
    attributes `higher_is_better` (default True) and `unit`.

    Raises:
        InputError: the name is neither known nor importable.
    """
    if spec == "top1":
        return Metric(name="top1", mean=_top1)
    if spec in SUMMARIES:
        return _of_confusion(spec, SUMMARIES[spec])
    if ":" not in spec:
        known = ", ".join(("top1", *SUMMARIES))
        raise InputError(f"unknown metric '{spec}'", hint=f"use {known}, or package.module:function")
    function = import_attribute(spec, what="metric")

    def mean(outputs: tuple[Tensor, ...], target: Tensor) -> float:
        return _user_mean(spec, function, outputs, target)

    return Metric(
        name=spec,
        mean=mean,
        unit=str(getattr(function, "unit", "points")),
        higher_is_better=bool(getattr(function, "higher_is_better", True)),
    )


def import_attribute(spec: str, *, what: str) -> Callable[..., Any]:
    """The callable named `package.module:function`; the working directory is searched as well.

    Raises:
        InputError: not importable, no such name, or not callable.
    """
    module_name, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError, ValueError, TypeError) as error:
        raise InputError(
            f"{what} '{spec}': cannot import '{module_name}' ({error})",
            hint="write package.module:function, importable from the working directory",
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        state = "has no" if found is None else "has a non-callable"
        raise InputError(
            f"{what} '{spec}': module '{module_name}' {state} '{attribute}'", hint="name a function"
        )
    return found  # type: ignore[no-any-return]


def program_runner(program: Program) -> Runner:
    """The program in eval mode as a function on CPU tensors."""
    network = switch(program, training=False)

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return as_tuple(network(*inputs))

    return run


def evaluate(
    run: Runner, data: Data, metric: Metric, *, batch_size: int = 256, limit: int | None = None
) -> Score:
    """`metric` of `run` over the validation part, or over its first `limit` samples.

    Raises:
        InputError: no validation sample, or the metric is not finite.
    """
    total, counts, samples = 0.0, torch.zeros(()), 0
    with torch.no_grad():
        for inputs, target in _limited(data.validation(batch_size), limit):
            if metric.counts is not None:
                counts = counts + metric.counts(run(inputs), target)
            else:
                total += metric.mean(run(inputs), target) * len(target)
            samples += len(target)
    if samples == 0:
        raise InputError(f"{data.name}: the validation part is empty", hint="add validation samples")
    value = total / samples if metric.summary is None else metric.summary(counts)
    if not math.isfinite(value):
        raise InputError(
            f"metric {metric.name} is not finite on {data.name}", hint="check the data and the metric"
        )
    return Score(name=metric.name, value=value, samples=samples, unit=metric.unit)


def _limited(
    batches: Iterator[tuple[tuple[Tensor, ...], Tensor]], limit: int | None
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    left = math.inf if limit is None else limit
    for inputs, target in batches:
        if left < len(target):
            inputs, target = tuple(x[: int(left)] for x in inputs), target[: int(left)]
        if len(target):
            yield inputs, target
        left -= len(target)
        if left <= 0:
            return


def _of_confusion(name: str, summary: Callable[[Tensor], float]) -> Metric:
    def counts(outputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        logits = _class_scores(name, outputs, target)
        return confusion(logits.argmax(1), target, logits.shape[1])

    def mean(outputs: tuple[Tensor, ...], target: Tensor) -> float:
        return summary(counts(outputs, target))

    return Metric(name=name, mean=mean, counts=counts, summary=summary)


def _top1(outputs: tuple[Tensor, ...], target: Tensor) -> float:
    logits = _class_scores("top1", outputs, target)
    counted = target != IGNORED
    return float((logits.argmax(1) == target)[counted].double().mean()) * 100.0


def _class_scores(metric: str, outputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """The first output [n, classes, ...], which has to fit class numbers [n, ...]."""
    logits = outputs[0]
    if logits.dim() < 2 or target.dtype.is_floating_point or target.shape != logits[:, 0].shape:
        raise InputError(
            f"{metric} needs class numbers and class scores: outputs {list(logits.shape)}, "
            f"targets {list(target.shape)} of {str(target.dtype).removeprefix('torch.')}",
            hint="choose another --metric package.module:function",
        )
    counted = target[target != IGNORED]
    highest, lowest = (int(counted.max()), int(counted.min())) if counted.numel() else (0, 0)
    if highest >= logits.shape[1] or lowest < 0:
        raise InputError(
            f"label {highest if highest > 0 else lowest} does not fit the network, which has "
            f"{logits.shape[1]} classes",
            hint="use the data that the network was trained for (classes in alphabetical order)",
        )
    return logits


def _user_mean(spec: str, function: Callable[..., Any], outputs: tuple[Tensor, ...], target: Tensor) -> float:
    value = function(outputs, target)
    if isinstance(value, Tensor) and value.dim() == 1 and len(value) == len(target):
        value = value.double().mean()
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"metric '{spec}' returned {type(value).__name__}",
            hint="return the mean over the batch, or one value a sample",
        ) from error
