"""Fine-tuning of a pruned program: SGD, cosine schedule, distillation, a checkpoint every epoch.

Every random draw of an epoch is seeded by the run's seed and the epoch's number. A resumed run therefore
ends with the very bits of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.contracts import Data, Progress
from toolchain.errors import CompressError, InputError, Interrupted
from toolchain.program.capture import switch
from toolchain.train.checkpoint import Checkpoint, Epoch, read_checkpoint, run_key, write_checkpoint
from toolchain.train.distil import distillation_loss
from toolchain.train.metric import Metric, as_tuple, evaluate
from toolchain.values import Program, Training

_WARM_UP: Final = 0.05
"""Share of all steps in which the learning rate rises linearly."""
_CLIP: Final = 5.0
"""Largest gradient norm: the first steps after a deep cut would otherwise overshoot."""


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """The program of the best epoch on validation (epoch 0 is the untrained one), and how it came about."""

    program: Program
    history: tuple[Epoch, ...]
    best_epoch: int
    best_value: float
    stopped_early: bool = False


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What an epoch works with; `student` and its optimizer change in place."""

    student: GraphModule
    judge: GraphModule
    teacher: GraphModule | None
    optimizer: torch.optim.SGD
    data: Data
    metric: Metric
    training: Training
    device: torch.device
    progress: Progress


def fine_tune(
    program: Program,
    *,
    teacher: Program | None,
    data: Data,
    metric: Metric,
    training: Training,
    folder: Path,
    progress: Progress,
    resume: bool = False,
    finish: bool = False,
) -> FineTuned:
    """Train a copy of `program` for `training.epochs` epochs; `folder` receives the checkpoint.

    `resume` continues from the checkpoint if there is one; `finish` returns its best state at once.

    Raises:
        Interrupted: Ctrl-C; the finished epochs are kept.
        InputError: the loss is not finite, or the checkpoint is of another run or unreadable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = run_key(program, teacher, data, metric, training)
    state = read_checkpoint(folder, key) if resume or finish else None
    if finish:
        return _result(program, state or _untouched(program), stopped_early=True)
    bench = _prepare(program, teacher, data, metric, training, progress)
    if state is None:
        state = _start(bench)
        write_checkpoint(folder, key, state)
    else:
        _restore(bench, state)
    devices = [] if bench.device.type != "cuda" else [bench.device]
    try:
        for number in range(len(state.history) + 1, training.epochs + 1):
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(_seed(training.seed, number))
                state = _epoch(bench, state, number)
            write_checkpoint(folder, key, state)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"fine-tuning interrupted in epoch {len(state.history) + 1} of {training.epochs}; "
            f"{len(state.history)} finished epochs are kept",
            hint="--resume continues; --resume --finish takes the best epoch so far",
        ) from stop
    return _result(program, state)


def best_device() -> torch.device:
    """CUDA or MPS when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 % of `steps`, then half a cosine down to zero; `step` from 0."""
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _prepare(
    program: Program,
    teacher: Program | None,
    data: Data,
    metric: Metric,
    training: Training,
    progress: Progress,
) -> _Bench:
    device = best_device()
    student = switch(program, training=True).to(device)
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in student.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
            # Norm scales and biases are not decayed: they are few, and shrinking them only undoes the norm.
            (decayed if parameter.dim() > 1 else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    original = None if teacher is None else switch(teacher, training=False).to(device)
    return _Bench(
        student=student,
        judge=switch(program, training=False).to(device),
        teacher=original,
        optimizer=torch.optim.SGD(
            [g for g in groups if g["params"]], lr=training.lr, momentum=0.9, nesterov=True
        ),
        data=data,
        metric=metric,
        training=training,
        device=device,
        progress=progress,
    )


def _epoch(bench: _Bench, state: Checkpoint, number: int) -> Checkpoint:
    """One pass over the training part and one over the validation part."""
    started = time.perf_counter()
    training = bench.training
    steps = max(1, math.ceil(bench.data.train_size / training.batch_size))
    total, seen, rate = 0.0, 0, 0.0
    batches = bench.data.train(
        training.batch_size, seed=_seed(training.seed, number), augment=training.augment
    )
    for step, (inputs, target) in enumerate(batches):
        rate = learning_rate(
            (number - 1) * steps + min(step, steps - 1), steps * training.epochs, training.lr
        )
        loss = _step(bench, tuple(x.to(bench.device) for x in inputs), target.to(bench.device), rate)
        if not math.isfinite(loss):
            raise InputError(
                f"fine-tuning: the loss is {loss} in epoch {number}, step {step + 1}",
                hint=f"lower --lr (now {training.lr:g}); finished epochs are kept",
            )
        total, seen = total + loss * len(target), seen + len(target)
        note = f"epoch {number}/{training.epochs}, loss {total / seen:.3f}"
        bench.progress.step((number - 1) * steps + step + 1, steps * training.epochs, note)
    if seen == 0:
        raise InputError(f"{bench.data.name}: the training part is empty", hint="add training samples")
    value = _judge(bench)
    epoch = Epoch(
        number=number,
        loss=total / seen,
        metric=value,
        lr=rate,
        seconds=time.perf_counter() - started,
    )
    best = bench.metric.better(value, state.best_value)
    weights = _copied(bench.student)
    return Checkpoint(
        history=(*state.history, epoch),
        weights=weights,
        optimizer=bench.optimizer.state_dict(),
        best=weights if best else state.best,
        best_value=value if best else state.best_value,
        best_epoch=number if best else state.best_epoch,
    )


def _step(bench: _Bench, inputs: tuple[Tensor, ...], target: Tensor, rate: float) -> float:
    for group in bench.optimizer.param_groups:
        group["lr"] = rate
    teacher = None
    if bench.teacher is not None:
        with torch.no_grad():
            teacher = as_tuple(bench.teacher(*inputs))
    bench.optimizer.zero_grad(set_to_none=True)
    try:
        loss = distillation_loss(
            as_tuple(bench.student(*inputs)),
            teacher,
            target,
            temperature=bench.training.temperature,
            weight=bench.training.distil_weight,
        )
    except (IndexError, ValueError) as error:
        raise InputError(
            f"{bench.data.name}: the targets do not fit the network's output ({error})",
            hint="check that labels and network belong together",
        ) from error
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in bench.optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
    bench.optimizer.step()
    return float(loss.detach())


def _judge(bench: _Bench) -> float:
    """The student's metric in eval mode."""
    bench.judge.load_state_dict(bench.student.state_dict())

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs = as_tuple(bench.judge(*(x.to(bench.device) for x in inputs)))
        return tuple(y.cpu() for y in outputs)

    try:
        return evaluate(run, bench.data, bench.metric).value
    except CompressError:
        if all(bool(torch.isfinite(p).all()) for p in bench.student.parameters()):
            raise
        raise InputError("fine-tuning: weights became infinite", hint="lower --lr") from None


def _start(bench: _Bench) -> Checkpoint:
    """Epoch 0: the pruned network as it came."""
    weights = _copied(bench.student)
    return Checkpoint(
        history=(),
        weights=weights,
        optimizer=bench.optimizer.state_dict(),
        best=weights,
        best_value=_judge(bench),
        best_epoch=0,
    )


def _untouched(program: Program) -> Checkpoint:
    weights = _copied(program.module)
    return Checkpoint(
        history=(), weights=weights, optimizer={}, best=weights, best_value=math.nan, best_epoch=0
    )


def _restore(bench: _Bench, state: Checkpoint) -> None:
    bench.student.load_state_dict(state.weights)
    bench.optimizer.load_state_dict(state.optimizer)


def _copied(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _result(program: Program, state: Checkpoint, *, stopped_early: bool = False) -> FineTuned:
    module = switch(program, training=False)
    module.load_state_dict(state.best)
    return FineTuned(
        program=replace(program, module=module),
        history=state.history,
        best_epoch=state.best_epoch,
        best_value=state.best_value,
        stopped_early=stopped_early,
    )


def _seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**31
