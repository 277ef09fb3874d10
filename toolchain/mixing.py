"""Mixed connectivity as a chapter of the run: branches of additions with channels of their own, if that pays.

Given:  what is planned with tied branches
Result: what is planned with loose ones, under the same limits and measured the same way, if it costs fewer
        nats and the target is not slower for it; else what was given
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from toolchain.baseline import Baseline
from toolchain.closing import ROUND, Choice, close_loop
from toolchain.contest import Contender, Ground, untied
from toolchain.damage import Damages, damage_together, measure_damages
from toolchain.errors import BudgetError, InputError
from toolchain.foresight import foresee_again
from toolchain.outlook import outlook
from toolchain.planning import with_model
from toolchain.prune.plan import Counts
from toolchain.prune.unions import unions_of
from toolchain.resources import BLOCK, Shape, shape_of
from toolchain.run import Run, build_for, measure
from toolchain.values import Channels, Request

REASON: Final = "branches of additions keep channels of their own, under the budget"


def require_mixable(request: Request) -> None:
    """Refuse what mixed connectivity does not go together with.

    Raises:
        InputError: names it.
    """
    if request.connectivity == "tied":
        return
    asked = f"--connectivity {request.connectivity}"
    if request.data is None:
        raise InputError(f"{asked} compares networks on samples, but there is no --data")
    if request.allow_resize is not None:
        raise InputError(f"--allow-resize and {asked} do not go together", hint="leave one of them out")
    if request.training.schedule != "one-shot":
        raise InputError(
            f"--schedule {request.training.schedule} removes channels bit by bit, {asked} at once",
            hint="leave one of them out",
        )


def loose_run(run: Run) -> Run | None:
    """The run with every addition loose that can be, planned for anew; None where there is none."""
    found = untied(run)
    if not found.program.loose:
        run.notes.append("mixed connectivity: no addition whose branches could keep different channels")
        return None
    return found


def loose_contender(contender: Contender, tied: Channels, loose: Channels, shape: Shape) -> Contender:
    """The contender on the shape of a loose run; networks measured with tied branches stay known to it."""
    model = contender.model
    if model is None:
        return contender
    known = tuple((_translated(counts, tied, loose), ms) for counts, ms in model.known)
    return replace(contender, model=replace(model, shape=shape, known=known))


def mixed(run: Run, baseline: Baseline, choice: Choice) -> Choice:
    """The planner's choice, or one with loose additions where that is better."""
    if run.request.connectivity == "tied" or choice.plan.changes_nothing:
        return choice
    loose = loose_run(run)
    if loose is None:
        return choice
    choice = with_model(run, baseline, choice)
    shape = shape_of(loose)
    found = planned(run, loose, choice, shape, measure_damages(loose, shape))
    return choice if found is None else better(run, choice, found)


def planned(run: Run, loose: Run, tied: Choice, shape: Shape, damages: Damages) -> Choice | None:
    """What is planned on a loose run for the runtime and precision of a choice; None where nothing holds.

    Args:
        run: the run with tied branches.
        loose: the same with loose ones.
        tied: what is planned for the former.
        shape: of the loose run.
        damages: of its groups and blocks.
    """
    holders = _holders(loose.channels, shape)
    shape = replace(shape, unions=unions_of(loose.channels, damages.scores, holders))
    ground = Ground(shape=shape, damages=damages)
    loose.once("ground", lambda: ground)
    try:
        if tied.contender is None:
            return foresee_again(loose, tied.combination)
        contender = loose_contender(tied.contender, run.channels, loose.channels, shape)
        return close_loop(loose, contender, ground, reason=REASON, candidates=tied.candidates)
    except BudgetError as error:
        run.notes.append(f"mixed connectivity: not used: {error}")
        return None


def better(run: Run, tied: Choice, loose: Choice) -> Choice:
    """The choice of fewer nats; the loose one only where the target is not slower for it.

    Unless it always may; under a budget of time both were made to hold it.
    """
    nats = [damage_together(run, choice.program) for choice in (tied, loose)]
    against = f"{nats[1]:.3g} nats against {nats[0]:.3g} with tied branches"
    if nats[1] >= nats[0]:
        run.notes.append(f"mixed connectivity: not used: {against}")
        return tied
    if run.request.budget.ms is None and run.request.connectivity == "mixed":
        times = _latencies(run, tied, loose)
        against += f", {times[1]:.4g} ms against {times[0]:.4g}"
        if times[1] > times[0]:
            run.notes.append(f"mixed connectivity: not used: slower on the target ({against})")
            return tied
    run.notes.append(f"mixed connectivity: {against}")
    return loose


def tied_scores(
    scores: Mapping[str, Sequence[float]], loose: Channels, tied: Channels
) -> dict[str, tuple[float, ...]]:
    """Scores of a loose run's units as those of tied ones: what all branches lose together."""
    owner = _owners(tied)
    found = {group.name: [0.0] * group.size for group in tied.groups}
    for group in loose.groups:
        member = group.members[0]
        for places, score in zip(member.index, scores[group.name], strict=True):
            name, unit = owner[member.parameter, member.dim, places[0]]
            found[name][unit] += score
    return {name: tuple(values) for name, values in found.items()}


def _latencies(run: Run, *choices: Choice) -> list[float]:
    """Milliseconds of the networks, measured in turns where the device is at hand, else predicted."""
    if run.target.calibration is not None:
        return [outlook(run, c.program, c.combination).result.estimate.ms for c in choices]
    with run.stage("Latency with tied and with mixed connectivity", "measure"):
        files = [build_for(run, c.program, [c.combination], c.plan.in_float)[c.combination] for c in choices]
        return [found.p50_ms for found in measure(run, files, ROUND)]


def _holders(channels: Channels, shape: Shape) -> dict[str, tuple[str, ...]]:
    """For each group the axes of the blocks that hold all of it."""
    inside = {BLOCK + block.name: set(block.parameters) for block in shape.blocks}
    return {
        group.name: tuple(b for b, own in inside.items() if all(m.parameter in own for m in group.members))
        for group in channels.groups
    }


def _translated(counts: Counts, tied: Channels, loose: Channels) -> dict[str, int]:
    """Counts of tied groups as those of loose ones: every branch of a group keeps the same share."""
    owner, sizes = _owners(tied), {group.name: group.size for group in tied.groups}
    found = {name: count for name, count in counts.items() if name.startswith(BLOCK)}
    for group in loose.all:
        member = group.members[0]
        names = [owner[member.parameter, member.dim, places[0]][0] for places in member.index]
        share = sum(counts.get(name, sizes[name]) / sizes[name] for name in names) / len(names)
        found[group.name] = max(1, round(share * group.size))
    return found


def _owners(channels: Channels) -> dict[tuple[str, int, int], tuple[str, int]]:
    """The group and unit at (parameter, dimension, position)."""
    return {
        (member.parameter, member.dim, place): (group.name, unit)
        for group in channels.groups
        for member in group.members
        for unit, places in enumerate(member.index)
        for place in places
    }
