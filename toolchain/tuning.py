"""Fine-tuning as a chapter of the run: how deep a cut is trained how hard, and when its units go."""

from __future__ import annotations

from dataclasses import replace

from toolchain import registry
from toolchain.closing import Choice
from toolchain.contest import reduce
from toolchain.contracts import Data, Evidence, Schedule
from toolchain.damage import SCORED, criterion_named
from toolchain.errors import InputError
from toolchain.plain import to_plain
from toolchain.program.capture import fingerprint
from toolchain.program.resize import with_state
from toolchain.run import Run
from toolchain.train.gradual import Cut, Removal
from toolchain.train.loop import FineTuned, fine_tune
from toolchain.values import Request

DEEP, DEEP_LR, SHALLOW_LR = 0.5, 0.05, 0.01
"""Nats of damage from which on the learning rate is the higher one: little damage needs little change."""


def schedule_named(request: Request) -> Schedule:
    """The schedule asked for.

    Raises:
        InputError: no such schedule, or nothing in the run that it could be a schedule of.
    """
    name = request.training.schedule
    found: Schedule = registry.find("toolchain.prune.schedules", "SCHEDULE", name, kind="schedule")
    if _at_once(found):
        return found
    if request.data is None or request.training.epochs == 0:
        missing = "--data" if request.data is None else "--epochs above 0"
        raise InputError(
            f"--schedule {name} removes channels during fine-tuning, and there is none",
            hint=f"give {missing}",
        )
    if request.rescale != "none" or request.reestimate:
        flag = "--reestimate-bn" if request.reestimate else "--rescale"
        raise InputError(
            f"{flag} makes up for a cut made at once; --schedule {name} makes many small ones",
            hint=f"leave out {flag}, or choose --schedule one-shot",
        )
    return found


def tune(run: Run, choice: Choice) -> tuple[Choice, FineTuned | None]:
    """Fine-tune with the original as teacher; None when there is nothing to tune.

    Where a schedule removed the units on the way, the choice that comes back has the plan that came of it:
    the same widths and blocks, and so the same latency, but perhaps other units. `run` is the run at the
    network's own input: at it the original sees the images, and a network for smaller ones, or for a part of
    them, sees them reduced.
    """
    request = run.request
    if run.data is None or choice.plan.changes_nothing or request.training.epochs == 0:
        return choice, None
    peak = request.lr or (DEEP_LR if choice.plan.damage > DEEP else SHALLOW_LR)
    training = replace(request.training, lr=peak)
    removal = _removal(run, choice, run.data)
    start: list[object] = [_cut(choice), request.rescale, request.refit, request.reestimate]
    if choice.run.learned_from is not None:
        start.append(fingerprint(choice.program))
    if removal is not None:
        start += [removal.criterion.name, removal.pinned]
    folder = run.stages.folder("training", [start, run.data.fingerprint(), repr(training)])
    with run.stage("Fine-tuning", "fine-tune"):
        tuned = fine_tune(
            choice.run.facing(choice.program),
            teacher=run.program,
            data=run.data,
            metric=run.metric,
            training=training,
            folder=folder,
            progress=run.progress,
            removal=removal,
            resume=True,
            finish=request.finish,
        )
    _note(run, tuned)
    if tuned.cut is not None:
        plan = replace(choice.plan, keep=tuned.cut.keep)
        choice = replace(choice, plan=plan, program=reduce(choice.run.program, choice.run.channels, plan))
    if choice.run.origin is not None:
        less = "the images at its own size, the result reduced"
        seen = less if choice.run.view is None else "the whole input, the result a part of it"
        run.notes.append(f"fine-tuning: the original sees {seen}")
        tuned = replace(tuned, program=with_state(choice.program, tuned.program.module))
    return choice, tuned


def _removal(run: Run, choice: Choice, data: Data) -> Removal | None:
    """How to get to the plan's widths bit by bit; None where everything goes at once."""
    schedule = schedule_named(run.request)
    if _at_once(schedule) or not (choice.plan.keep or choice.plan.dropped):
        return None
    return Removal(
        original=choice.run.facing(choice.run.program),
        channels=choice.run.channels,
        final=Cut(keep=choice.plan.keep, dropped=choice.plan.dropped),
        schedule=schedule,
        criterion=criterion_named(run.request),
        evidence=Evidence(batches=(data.calibration(SCORED),), seed=run.request.seed),
        pinned=run.request.plan is not None,
    )


def _at_once(schedule: Schedule) -> bool:
    return schedule.removed(0.0) >= 1.0


def _note(run: Run, tuned: FineTuned) -> None:
    if tuned.cut is not None:
        name = run.request.training.schedule
        run.notes.append(f"channels and blocks were removed during fine-tuning, schedule {name}")
    if len(tuned.history) > 1:
        at = "" if tuned.cut is None else " among those at the final widths"
        run.notes.append(
            f"the epoch taken is the best{at} on the validation samples that also give the metric"
        )
    if tuned.stopped_early:
        epochs = f"{len(tuned.history)} of {run.request.training.epochs} epochs"
        taken = "the best one is taken"
        if tuned.hastened:
            taken = "what the schedule had yet to remove went at once, and nothing was learnt after that"
        run.notes.append(f"fine-tuning was ended after {epochs}: {taken}")


def _cut(choice: Choice) -> list[object]:
    """What a plan removes, without what it was estimated to save."""
    plan = choice.plan
    return [plan.program, to_plain(plan.keep), list(plan.dropped), plan.resize, to_plain(plan.inputs)]
