"""Fine-tuning of a pruned program: SGD, cosine schedule, distillation, a checkpoint every epoch.

With a `Removal` the program is cut bit by bit while it learns.

Every random draw of an epoch is seeded by the run's seed and the epoch's number. A resumed run therefore
ends with the very bits of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.contracts import Data, Progress
from toolchain.errors import CompressError, InputError, Interrupted
from toolchain.program.capture import switch
from toolchain.train.checkpoint import Checkpoint, Epoch, read_checkpoint, run_key, write_checkpoint
from toolchain.train.constraint import Constraint
from toolchain.train.crew import Job, crew
from toolchain.train.devices import best_device
from toolchain.train.distil import mean_loss
from toolchain.train.gradual import Cut, Removal
from toolchain.train.journal import add_line
from toolchain.train.metric import Metric, as_tuple, evaluate
from toolchain.train.student import Student, channels_last, copied, fill
from toolchain.values import Program, Training

if TYPE_CHECKING:
    from toolchain.contracts import Batch

_WARM_UP: Final = 0.05
"""Share of all steps in which the learning rate rises linearly."""
_RISE: Final = 0.3
"""Share of all steps in which the learning rate of `one-cycle` rises, from 1/25 of its peak (Smith, 2018)."""


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """The program of the best epoch on validation (epoch 0 is the untrained one), and how it came about.

    `cut` is what was removed in training; None where nothing was. `hastened`: training was ended before the
    schedule, and what was left to remove went at once, untrained.
    """

    program: Program
    history: tuple[Epoch, ...]
    best_epoch: int
    best_value: float
    stopped_early: bool = False
    cut: Cut | None = None
    hastened: bool = False


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What an epoch works with; `student` changes in place."""

    student: Student
    teacher: GraphModule | None
    data: Data
    metric: Metric
    training: Training
    progress: Progress

    @property
    def job(self) -> Job:
        """What a step is computed with now."""
        return Job(
            module=self.student.module,
            teacher=self.teacher,
            data=self.data,
            training=self.training,
            device=self.student.device,
        )


def fine_tune(
    program: Program,
    *,
    teacher: Program | None,
    data: Data,
    metric: Metric,
    training: Training,
    folder: Path,
    progress: Progress,
    removal: Removal | None = None,
    constraint: Constraint | None = None,
    resume: bool = False,
    finish: bool = False,
) -> FineTuned:
    """Train a copy of `program` for `training.epochs` epochs; `folder` receives the checkpoint.

    With `removal` it is the original that is trained, and cut on the way; `program` is what the plan gives at
    once. Only epochs that end at the final widths can then be the best. With a `constraint` weights are what
    it wants; only epochs that end with all of it can be the best.
    `resume` continues from the checkpoint if there is one; `finish` returns its best state at once.

    Raises:
        Interrupted: Ctrl-C; the finished epochs are kept.
        InputError: the loss is not finite, or the checkpoint is of another run or unreadable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = run_key(program, teacher, data, metric, training, removal, constraint)
    state = read_checkpoint(folder, key) if resume or finish else None
    if finish:
        return _ended(program, removal, state)
    cut = Cut() if state is None else state.cut
    device = best_device()
    bench = _Bench(
        student=Student(_cut(program, removal, cut), training, device, removal, cut, constraint),
        teacher=None if teacher is None else channels_last(switch(teacher, training=False)).to(device),
        data=data,
        metric=metric,
        training=training,
        progress=progress,
    )
    if state is None:
        state = _start(bench)
        write_checkpoint(folder, key, state)
    else:
        bench.student.restore(state)
    devices = [] if device.type != "cuda" else [device]
    try:
        for number in range(len(state.history) + 1, training.epochs + 1):
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(_seed(training.seed, number))
                state = _epoch(bench, state, number)
            write_checkpoint(folder, key, state)
            _log(bench, state)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"fine-tuning interrupted in epoch {len(state.history) + 1} of {training.epochs}; "
            f"{len(state.history)} finished epochs are kept",
            hint="--resume continues; --resume --finish takes the best epoch so far",
        ) from stop
    return _result(program, removal, state)


def learning_rate(step: int, steps: int, peak: float, course: str = "cosine") -> float:
    """Linear warm-up over the first 5 % of `steps`, then half a cosine down to zero; `step` from 0.

    `one-cycle`: half a cosine up to the peak over the first 30 %, another one down to zero.
    """
    if course == "one-cycle":
        top = _RISE * steps
        if step < top:
            return peak * (1 / 25 + (1 - 1 / 25) * 0.5 * (1.0 - math.cos(math.pi * step / top)))
        return peak * 0.5 * (1.0 + math.cos(math.pi * (step - top) / max(1.0, steps - top)))
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _epoch(bench: _Bench, state: Checkpoint, number: int) -> Checkpoint:
    """One pass over the training part and one over the validation part."""
    started = time.perf_counter()
    training, student = bench.training, bench.student
    steps = max(1, math.ceil(bench.data.train_size / training.batch_size))
    total_steps = steps * training.epochs
    total, seen, rate = 0.0, 0, 0.0
    for step, batch in enumerate(crew().batches(bench.job, _seed(training.seed, number))):
        now = (number - 1) * steps + min(step, steps - 1)
        student.cut_what_is_due(now, total_steps)
        share = student.rate(now, total_steps)
        course = learning_rate(now, total_steps, training.lr, training.rate)
        rate = course if share is None else share * training.lr
        loss, count = _step(bench, batch, rate)
        student.average(now)
        if not math.isfinite(loss):
            raise InputError(
                f"fine-tuning: the loss is {loss} in epoch {number}, step {step + 1}",
                hint=f"lower --lr (now {training.lr:g}); finished epochs are kept",
            )
        total, seen = total + loss * count, seen + count
        left = "" if student.left is None else f", {student.left:.0%} of the parameters left"
        note = f"epoch {number}/{training.epochs}, loss {total / seen:.3f}{left}"
        bench.progress.step((number - 1) * steps + step + 1, total_steps, note)
    mean = mean_loss(total, seen, bench.data)
    if number == training.epochs:
        student.cut_what_is_due(total_steps, total_steps)
    value = _judge(bench)
    epoch = Epoch(
        number=number,
        loss=mean,
        metric=value,
        lr=rate,
        seconds=time.perf_counter() - started,
        left=student.left,
    )
    best = student.final and (not state.best or bench.metric.better(value, state.best_value))
    return Checkpoint(
        history=(*state.history, epoch),
        weights=student.weights(),
        optimizer=student.optimizer.state_dict(),
        best=student.rested() if best else state.best,
        best_value=value if best else state.best_value,
        best_epoch=number if best else state.best_epoch,
        cut=student.cut,
        average=student.averages,
    )


def _log(bench: _Bench, state: Checkpoint) -> None:
    last, part = state.history[-1], bench.student.constraint.identity or "fine-tuning"
    values = {"loss": last.loss, "metric": last.metric, "lr": last.lr, "seconds": last.seconds}
    add_line(bench.training.log, part, last.number, bench.training.epochs, **values)


def _step(bench: _Bench, batch: Batch, rate: float) -> tuple[float, int]:
    """The mean loss of the batch, and its samples."""
    optimizer, module, constraint = bench.student.optimizer, bench.student.module, bench.student.constraint
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    constraint.forward(module)
    loss = crew().backward(bench.job, batch)
    constraint.backward(module)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, bench.training.clip)
    optimizer.step()
    constraint.settle(module)
    return loss


def _judge(bench: _Bench) -> float:
    """The student's metric in eval mode."""
    judge, device = bench.student.judged(), bench.student.device

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs = as_tuple(judge(*(x.to(device) for x in inputs)))
        return tuple(y.cpu() for y in outputs)

    try:
        return evaluate(run, bench.data, bench.metric).value
    except CompressError:
        if all(bool(torch.isfinite(p).all()) for p in judge.parameters()):
            raise
        raise InputError("fine-tuning: weights became infinite", hint="lower --lr") from None


def _start(bench: _Bench) -> Checkpoint:
    """Epoch 0: the pruned network as it came, or the original where all is yet to be removed."""
    student, final = bench.student, bench.student.final
    value = _judge(bench) if final else math.nan
    return Checkpoint(
        history=(),
        weights=student.weights(),
        optimizer=student.optimizer.state_dict(),
        best=student.rested() if final else {},
        best_value=value,
        best_epoch=0,
    )


def _cut(program: Program, removal: Removal | None, cut: Cut) -> Program:
    """The untrained program that a state with this cut belongs to."""
    return program if removal is None else removal.program(cut)


def _ended(program: Program, removal: Removal | None, state: Checkpoint | None) -> FineTuned:
    """The best there is now; where the final widths are not reached, the rest is removed at once."""
    if state is None:
        weights = copied(program.module)
        state = Checkpoint(
            history=(), weights=weights, optimizer={}, best=weights, best_value=math.nan, best_epoch=0
        )
        return _result(program, None, state, stopped_early=True)
    if state.best or removal is None:
        return _result(program, removal, state, stopped_early=True)
    now = removal.program(state.cut)
    now = replace(now, module=switch(now, training=False))
    now.module.load_state_dict(state.weights)
    after = removal.deeper(state.cut, 1.0, now)
    module = switch(removal.program(after), training=False)
    fill(module, removal.carried(state.weights, state.cut, after))
    last = len(state.history)
    state = replace(state, cut=after, best=copied(module), best_epoch=last)
    return replace(_result(program, removal, state, stopped_early=True), hastened=True)


def _result(
    program: Program, removal: Removal | None, state: Checkpoint, *, stopped_early: bool = False
) -> FineTuned:
    start = _cut(program, removal, state.cut)
    module = switch(start, training=False)
    module.load_state_dict(state.best or state.weights)
    return FineTuned(
        program=replace(start, module=module),
        history=state.history,
        best_epoch=state.best_epoch,
        best_value=state.best_value,
        stopped_early=stopped_early,
        cut=None if removal is None else state.cut,
    )


def _seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**31
