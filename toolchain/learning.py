"""Pruning while training, as a chapter of the run: what is learned, and the plan that comes of it.

Given:  the planner's choice (a runtime, a precision, a latency model that was corrected near the budget)
Result: the choice that the learned network's own verdicts lead to, under the same limits, measured the same
        way; a network that holds the budget as it is has nothing to learn
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolchain import registry
from toolchain.baseline import Baseline
from toolchain.closing import Choice, close_loop
from toolchain.contest import Ground, ground_of, limits
from toolchain.damage import Damages, criterion_named, damage_together
from toolchain.errors import BudgetError, InputError
from toolchain.foresight import foresee_again, foreseen_contender
from toolchain.mixing import better, loose_contender, loose_run, planned, tied_scores
from toolchain.plain import to_plain
from toolchain.planning import with_model
from toolchain.program.capture import fingerprint
from toolchain.program.entrance import entrance
from toolchain.program.gating import Site, block_site, group_sites
from toolchain.prune.plan import Limit
from toolchain.prune.tangents import Usage
from toolchain.resources import BLOCK, Shape, shape_of
from toolchain.run import Run
from toolchain.seeing import on_a_part, partly_seeing, watching
from toolchain.train.learning import Learned, learn
from toolchain.train.lesson import Learner, Lesson, Verdicts
from toolchain.values import PLANNER, Channels, Program, Request


def learner_named(request: Request) -> Learner | None:
    """The learner asked for; None for the planner.

    Raises:
        InputError: no such method, or something in the request that it does not go together with.
    """
    name = request.learning.method
    if name == PLANNER:
        return None
    if name not in registry.names("toolchain.train.learners"):
        near = ", ".join((PLANNER, *registry.names("toolchain.train.learners")))
        raise InputError(f"unknown method '{name}'", hint=f"known: {near}")
    found: Learner = registry.find("toolchain.train.learners", "LEARNER", name)
    if found.begin is not None and (request.data is None or request.learning.epochs == 0):
        missing = "--data" if request.data is None else "--method-epochs above 0"
        raise InputError(
            f"--method {name} learns what to remove, and there is nothing to learn from",
            hint=f"give {missing}",
        )
    if request.learning.strength != 1 and not found.penalizes:
        raise InputError(
            f"--method-strength and --method {name} do not go together: it has no penalty",
            hint="leave one of them out",
        )
    if request.allow_resize is not None:
        raise InputError(
            f"--allow-resize and --method {name} do not go together", hint="leave one of them out"
        )
    if request.connectivity != "tied" and not found.branches:
        raise InputError(
            f"--method {name} does not learn branch by branch, as --connectivity {request.connectivity} asks",
            hint="leave one of them out, or choose --method bar",
        )
    if request.training.schedule != "one-shot":
        raise InputError(
            f"--schedule {request.training.schedule} removes channels during fine-tuning, --method {name} "
            "before it",
            hint="leave one of them out",
        )
    return found


def require_parts(request: Request, program: Program) -> None:
    """Refuse a method that removes parts of the input where nothing of it can go.

    Raises:
        UnsupportedError: says why.
    """
    learner = learner_named(request)
    if learner is not None and learner.inputs:
        entrance(program)


def learned(run: Run, baseline: Baseline, choice: Choice) -> Choice:
    """The choice after learning; the one handed in where the planner was asked for or nothing has to go.

    Raises:
        BudgetError: no network learned was measured under the budget.
        Interrupted: Ctrl-C; finished epochs are kept.
    """
    learner = learner_named(run.request)
    if learner is None or (choice.plan.changes_nothing and not learner.inputs):
        return choice
    given, choice = choice, with_model(run, baseline, choice)
    contender = choice.contender or foreseen_contender(run, choice.combination)
    shape = (choice.ground or ground_of(run)).shape
    loose = None if run.request.connectivity == "tied" else loose_run(run)
    pupil = run if loose is None else loose
    whole = shape if loose is None else shape_of(loose)
    if loose is not None:
        contender = loose_contender(contender, run.channels, loose.channels, whole)
    bounds = limits(run, contender, whole)
    asked = run.request.learning
    lesson = lesson_of(
        *(pupil.program, pupil.channels, whole, bounds), transition=asked.transition, strength=asked.strength
    )
    if learner.inputs:
        lesson = watching(lesson, asked.price)
    found = _learned(pupil, learner, lesson, choice)
    if found is None:
        run.notes.append(f"--method {learner.name}: nothing learned yet, the planner's choice is taken")
        return given if given.plan.changes_nothing else choice
    damages = _damages(learner, found.verdicts, run.request)
    if learner.inputs:
        found, part = partly_seeing(run, lesson, found)
        if part is not None:
            return on_a_part(part, baseline, choice, found, damages)
        if given.plan.changes_nothing:
            return given
    if loose is None:
        return _tied(run, choice, found, Ground(shape=shape, damages=damages, widths=found.verdicts.widths))
    wiser = replace(loose, program=found.program, learned_from=run.program, kept={})
    mixed = planned(run, wiser, choice, whole, damages)
    scores = tied_scores(damages.scores, loose.channels, run.channels)
    ground = Ground(shape=shape, damages=replace(damages, scores=scores))
    try:
        tied = _tied(run, choice, found, ground)
    except BudgetError:
        if mixed is None:
            raise
        return mixed
    return tied if mixed is None else better(run, tied, mixed)


def _tied(run: Run, choice: Choice, found: Learned, ground: Ground) -> Choice:
    """What is planned from verdicts on tied branches."""
    wiser = replace(run, program=replace(found.program, loose=()), learned_from=run.program)
    wiser.once("ground", lambda: ground)
    if choice.contender is None:
        return foresee_again(wiser, choice.combination)
    reason = f"what {ground.damages.criterion} learned, under the budget"
    return close_loop(wiser, choice.contender, ground, reason=reason, candidates=choice.candidates)


def settled(run: Run, choice: Choice) -> Choice:
    """The choice with the divergence of the learned, cut network from the original as its damage."""
    if choice.run.learned_from is None or run.data is None:
        return choice
    end = run if choice.run.origin is None else replace(choice.run, origin=run)
    return replace(choice, plan=replace(choice.plan, damage=damage_together(end, choice.program)))


def lesson_of(
    program: Program,
    channels: Channels,
    shape: Shape,
    bounds: Sequence[Limit],
    *,
    transition: str = "sigmoid",
    strength: float = 1.0,
) -> Lesson:
    """Gates on all groups and on the blocks that can have one, and the limits as what they use."""
    sites: list[Site] = list(group_sites(program))
    inside: dict[str, tuple[str, ...]] = {}
    for block in shape.blocks:
        site = block_site(program, block, BLOCK + block.name)
        if site is not None:
            sites.append(site)
        own = set(block.parameters)
        inside[BLOCK + block.name] = tuple(
            group.name for group in channels.groups if all(m.parameter in own for m in group.members)
        )
    return Lesson(
        program=program,
        channels=channels,
        sites=tuple(sites),
        inside=inside,
        usage=Usage(limits=tuple(bounds), sizes={g.name: g.size for g in channels.all}),
        transition=transition,
        strength=strength,
    )


def _damages(learner: Learner, verdicts: Verdicts, request: Request) -> Damages:
    """What was learned, as the solver reads it; where nothing was, the units are the criterion's."""
    name = learner.name if learner.begin is not None else criterion_named(request).name
    blocks = {name.removeprefix(BLOCK): nats for name, nats in verdicts.blocks.items()}
    return Damages(criterion=name, scores=verdicts.scores, scale={}, blocks=blocks)


def _learned(run: Run, learner: Learner, lesson: Lesson, choice: Choice) -> Learned | None:
    """What the method found; None where it was ended before its first epoch."""
    if learner.begin is None:
        assert learner.judge is not None
        scores = ground_of(run).damages.scores
        verdicts = learner.judge(lesson, scores)
        return Learned(program=run.program, verdicts=verdicts, counts={}, history=())
    request, data = run.request, run.data
    assert data is not None
    limits = (
        to_plain(request.budget),
        request.target,
        request.device,
        list(choice.combination),
        list(choice.plan.in_float),
    )
    inputs = [
        *(learner.name, fingerprint(run.program), data.fingerprint(), to_plain(request.preprocessing)),
        *(() if learner.every_epoch else limits),
        *(to_plain(request.learning), to_plain(request.training), request.seed, run.program.loose),
    ]
    with run.stage(f"Learning what to remove ({learner.name})", "learn"):
        found = learn(
            learner,
            lesson,
            data=data,
            metric=run.metric,
            training=request.training,
            learning=request.learning,
            folder=run.stages.folder("learning", inputs),
            progress=run.progress,
            finish=request.finish,
        )
    if found is not None:
        _note(run, learner, lesson, found)
    return found


def _note(run: Run, learner: Learner, lesson: Lesson, found: Learned) -> None:
    """What became of the network while it learned, before anything was cut."""
    last, whole, usage = found.history[found.taken - 1], lesson.usage.exact({}), lesson.usage
    used = ", ".join(
        f"{name} {100 * now:.0f} % of the limit (whole: {100 * then:.0f} %)"
        for name, now, then in zip(usage.names, last.used, whole, strict=True)
    )
    groups = run.channels.groups
    total = sum(group.size for group in groups)
    closed = total - sum(found.counts[group.name] for group in groups)
    gone = sum(found.counts.get(name, 1) == 0 for name in lesson.inside)
    epochs = f"{len(found.history)} epochs"
    if learner.every_epoch:
        holds = max(last.used, default=0.0) <= 1
        why = "the best of those that hold the limits as they are" if holds else "none holds the limits yet"
        epochs = f"epoch {found.taken} of {len(found.history)} ({why})"
    run.notes.append(
        f"{learner.name}: after {epochs} {closed} of {total} channels and {gone} of "
        f"{len(lesson.inside)} blocks had closed; what was open used {used}; "
        f"{run.metric.name} {last.metric:.2f}"
    )
