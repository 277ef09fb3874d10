"""Training a network that becomes smaller as it learns; a checkpoint every epoch.

Adam on weights and on what the method adds to them, distillation from the unpruned network. As in
fine-tuning, every random draw of an epoch is seeded by the run's seed and the epoch's number: a resumed run
ends with the very bits of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.contracts import Data, Progress
from toolchain.errors import InputError, Interrupted
from toolchain.program.capture import fingerprint, switch
from toolchain.train.checkpoint import read_state, write_state
from toolchain.train.crew import Job, crew
from toolchain.train.devices import best_device
from toolchain.train.distil import mean_loss
from toolchain.train.gates import FASTEST, TRAVEL
from toolchain.train.journal import add_line
from toolchain.train.lesson import Learner, Lesson, Pressure, Verdicts
from toolchain.train.metric import Metric, as_tuple, evaluate
from toolchain.train.student import channels_last
from toolchain.values import Learning, Program, Training

if TYPE_CHECKING:
    from toolchain.contracts import Batch

RATE: Final = 1e-3
"""Adam's learning rate of the weights, after a rise. It does not fall: what the budget takes last is learned
around like what it took first, and fine-tuning comes after."""
WARM: Final = 0.02
"""Share of all steps in which it rises linearly."""


@dataclass(frozen=True, kw_only=True)
class Lived:
    """One finished epoch: mean loss, the metric at rest, and what the network uses of each limit (1: all)."""

    number: int
    loss: float
    metric: float
    used: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The whole network with what it learned in its weights, and the verdicts on its parts.

    `counts` is how much of every axis had not closed by itself. `taken` is the epoch that all this is of.
    """

    program: Program
    verdicts: Verdicts
    counts: Mapping[str, int]
    history: tuple[Lived, ...]
    taken: int = 0


@dataclass(frozen=True, kw_only=True)
class _State:
    history: tuple[Lived, ...]
    weights: Mapping[str, Tensor]
    pressure: Mapping[str, Any]
    optimizer: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What an epoch works with; all of it but data and settings changes in place."""

    module: GraphModule
    judge: GraphModule
    teacher: GraphModule | None
    pressure: Pressure
    optimizer: torch.optim.Adam
    lesson: Lesson
    data: Data
    metric: Metric
    training: Training
    epochs: int
    progress: Progress
    device: torch.device

    @property
    def job(self) -> Job:
        """What a step is computed with."""
        return Job(
            module=self.module,
            teacher=self.teacher,
            data=self.data,
            training=self.training,
            device=self.device,
        )


def learn(
    learner: Learner,
    lesson: Lesson,
    *,
    data: Data,
    metric: Metric,
    training: Training,
    learning: Learning,
    folder: Path,
    progress: Progress,
    finish: bool = False,
) -> Learned | None:
    """Train a copy of the lesson's program; goes on from the checkpoint in `folder` where there is one.

    `finish` takes what the last finished epoch has learned; None where there is none.

    Raises:
        Interrupted: Ctrl-C; the finished epochs are kept.
        InputError: the loss is not finite, or the checkpoint is of another run or unreadable.
    """
    assert learner.begin is not None
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(learner, lesson, data, training, learning)
    state = read_state(folder, key, _state_of)
    if finish and state is None:
        return None
    device = best_device()
    pressure = learner.begin(lesson)
    module = channels_last(switch(lesson.program, training=True)).to(device)
    teacher = channels_last(switch(lesson.program, training=False)).to(device) if learner.distils else None
    steps = max(1, math.ceil(data.train_size / training.batch_size)) * learning.epochs
    bench = _Bench(
        module=module,
        judge=switch(lesson.program, training=False).to(device),
        teacher=teacher,
        pressure=pressure,
        optimizer=_optimizer(module, pressure, training, steps),
        lesson=lesson,
        data=data,
        metric=metric,
        training=training,
        epochs=learning.epochs,
        progress=progress,
        device=device,
    )
    history = () if state is None else _resumed(bench, state)
    if not finish:
        history = _epochs(bench, history, folder, key, every=learner.every_epoch)
    taken = len(history)
    if learner.every_epoch:
        history, taken = _chosen(bench, history, folder, key)
    return Learned(
        program=replace(lesson.program, module=_at_rest(bench).cpu()),
        verdicts=pressure.verdicts(module),
        counts=pressure.counts(module),
        history=history,
        taken=taken,
    )


def _epochs(
    bench: _Bench, history: tuple[Lived, ...], folder: Path, key: str, *, every: bool
) -> tuple[Lived, ...]:
    devices = [] if bench.device.type != "cuda" else [bench.device]
    try:
        for number in range(len(history) + 1, bench.epochs + 1):
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed((bench.training.seed * 1_000_003 + number) % 2**31)
                history = (*history, _epoch(bench, number))
            content = {
                "key": key,
                "history": [asdict(epoch) for epoch in history],
                "weights": {n: t.detach().cpu().clone() for n, t in bench.module.state_dict().items()},
                "pressure": bench.pressure.state(),
                "optimizer": bench.optimizer.state_dict(),
            }
            if every:
                place = _place(folder, number)
                place.mkdir(exist_ok=True)
                write_state(place, {**content, "optimizer": {}})
            write_state(folder, content)
            last, lr = history[-1], bench.optimizer.param_groups[0]["lr"]
            values = {"loss": last.loss, "metric": last.metric, "lr": lr, "seconds": last.seconds}
            add_line(bench.training.log, "learning", last.number, bench.epochs, **values)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"learning interrupted in epoch {len(history) + 1} of {bench.epochs}; "
            f"{len(history)} finished epochs are kept",
            hint="--resume continues; --resume --finish takes what is learned so far",
        ) from stop
    return history


def _chosen(
    bench: _Bench, history: tuple[Lived, ...], folder: Path, key: str
) -> tuple[tuple[Lived, ...], int]:
    """Go back to the best epoch whose network holds every limit as it is; stay with the last if none does.

    The history comes back with what every epoch uses of the limits of now; it may have lived under others.
    """
    found: list[Lived] = []
    best: tuple[Lived, _State] | None = None
    for epoch in history:
        state = read_state(_place(folder, epoch.number), key, _state_of)
        if state is None:
            raise InputError(
                f"{_place(folder, epoch.number)} is gone, and with it the network of an epoch",
                hint=f"delete {folder} to learn anew",
            )
        _return(bench, state)
        used = bench.lesson.usage.exact(bench.pressure.counts(bench.module))
        found.append(replace(epoch, used=used))
        if max(used, default=0.0) <= 1 and (
            best is None or not bench.metric.better(best[0].metric, epoch.metric)
        ):
            best = epoch, state
    if best is not None:
        _return(bench, best[1])
    return tuple(found), len(history) if best is None else best[0].number


def _resumed(bench: _Bench, state: _State) -> tuple[Lived, ...]:
    _return(bench, state)
    bench.optimizer.load_state_dict(state.optimizer)
    return state.history


def _return(bench: _Bench, state: _State) -> None:
    bench.module.load_state_dict(state.weights)
    bench.pressure.restore(state.pressure)


def _place(folder: Path, number: int) -> Path:
    """Where the network of an epoch is kept."""
    return folder / f"epoch-{number}"


def _epoch(bench: _Bench, number: int) -> Lived:
    started = time.perf_counter()
    size, seed = bench.training.batch_size, bench.training.seed
    steps = max(1, math.ceil(bench.data.train_size / size))
    total, seen = 0.0, 0
    for step, batch in enumerate(crew().batches(bench.job, (seed * 1_000_003 + number) % 2**31)):
        now = (number - 1) * steps + min(step, steps - 1)
        loss, count = _step(bench, batch, now, steps * bench.epochs)
        if not math.isfinite(loss):
            raise InputError(
                f"learning: the loss is {loss} in epoch {number}, step {step + 1}",
                hint="check the data; finished epochs are kept",
            )
        total, seen = total + loss * count, seen + count
        note = f"epoch {number}/{bench.epochs}, loss {total / seen:.3f}"
        bench.progress.step(now + 1, steps * bench.epochs, note)
    mean = mean_loss(total, seen, bench.data)
    bench.pressure.epoch_ends(bench.module)
    return Lived(
        number=number,
        loss=mean,
        metric=_judged(bench),
        used=bench.lesson.usage.exact(bench.pressure.counts(bench.module)),
        seconds=time.perf_counter() - started,
    )


def _step(bench: _Bench, batch: Batch, step: int, steps: int) -> tuple[float, int]:
    """One step: the mean loss of the batch without the penalty, and its samples."""
    bench.optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / (WARM * steps))
    bench.optimizer.zero_grad(set_to_none=True)
    weights = bench.pressure.weights(bench.module, drawn=True)
    penalty = bench.pressure.penalty(bench.module, step / steps)
    loss = crew().backward(bench.job, batch, weights, penalty)
    torch.nn.utils.clip_grad_norm_(bench.optimizer.param_groups[0]["params"], bench.training.clip)
    bench.optimizer.step()
    bench.pressure.settle(bench.module)
    return loss


def _at_rest(bench: _Bench) -> GraphModule:
    """The network in eval mode with what was learned in its weights."""
    with torch.no_grad():
        bench.judge.load_state_dict(bench.module.state_dict())
        for name, weight in bench.pressure.weights(bench.module, drawn=False).items():
            bench.judge.get_parameter(name).copy_(weight)
    return bench.judge


def _judged(bench: _Bench) -> float:
    judge = _at_rest(bench)

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(y.cpu() for y in as_tuple(judge(*(x.to(bench.device) for x in inputs))))

    return evaluate(run, bench.data, bench.metric).value


def _optimizer(module: GraphModule, pressure: Pressure, training: Training, steps: int) -> torch.optim.Adam:
    weights = [p for p in module.parameters() if p.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": training.weight_decay}]
    own = list(pressure.learnable())
    if own:
        # Adam makes every step as long as the last one, however weak the pressure, and all gates would run on
        # side by side. Below a gate's share of one nat its steps become shorter.
        share = 1 / sum(tensor.numel() for tensor in own)
        rate = min(max(RATE, TRAVEL / steps), FASTEST)
        groups.append({"params": own, "weight_decay": 0.0, "lr": rate, "eps": share})
    return torch.optim.Adam(groups, lr=RATE)


def _key(learner: Learner, lesson: Lesson, data: Data, training: Training, learning: Learning) -> str:
    """What a checkpoint belongs to."""
    parts = [learner.name, fingerprint(lesson.program), data.fingerprint(), repr(training), repr(learning)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _state_of(content: dict[str, Any]) -> _State:
    return _State(
        history=tuple(Lived(**{**e, "used": tuple(e["used"])}) for e in content["history"]),
        weights=content["weights"],
        pressure=content["pressure"],
        optimizer=content["optimizer"],
    )
