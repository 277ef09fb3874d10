"""Deciding: which runtime, which precision, and the plan that holds the budget with the least damage."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from toolchain.baseline import Baseline, acceptable, measure_baseline
from toolchain.closing import Choice, Round, close_loop
from toolchain.contenders import (
    contenders,
    mixable,
    mixed_contenders,
)
from toolchain.contest import (
    Contender,
    Ground,
    as_plan,
    ground_of,
    plan_under,
    reduce,
    size_damage,
    untied,
)
from toolchain.damage import damage_together
from toolchain.errors import BudgetError, InputError
from toolchain.plain import from_plain, to_plain
from toolchain.program.capture import fingerprint
from toolchain.program.cost import layers
from toolchain.prune.plan import Solution
from toolchain.prune.planfile import check_plan, plan_text, read_plan
from toolchain.run import Run
from toolchain.sizing import at_size, at_view, smaller_runs
from toolchain.values import PrunePlan
from toolchain.whole import unpruned_choice

WORTHWHILE: Final = 0.05
"""Share of the least damage so far that a mixture of precisions has to be able to win."""


def decide_once(run: Run, baseline: Baseline) -> Choice:
    """`decide`, kept with the finished stages: timings differ from run to run, a decision taken stands.

    A choice from an earlier run has no contender: it cannot be corrected, only decided anew.
    """
    fresh: list[Choice] = []

    def make(folder: Path) -> None:
        fresh.append(decide(run, baseline))
        record = {name: to_plain(getattr(fresh[0], name)) for name in ("reason", "candidates", "rounds")}
        (folder / "plan.json").write_text(plan_text(fresh[0].plan), encoding="utf-8")
        (folder / "choice.json").write_text(json.dumps(record), encoding="utf-8")

    request = run.request
    inputs = {
        "program": fingerprint(run.program),
        "target": [request.target, request.device],
        "data": None if run.data is None else [run.data.fingerprint(), to_plain(request.preprocessing)],
        "budget": to_plain(request.budget),
        "asked": [
            request.criterion,
            request.variety,
            request.runtime,
            request.precisions,
            request.metric,
            request.threads,
        ],
        "seed": request.seed,
        "resize": request.allow_resize,
        "baseline": [[*c, m.p50_ms] for c, m in baseline.measurements.items()],
    }
    folder, _ = run.stages.once("plan", inputs, make)
    if fresh:
        return fresh[0]
    plan = read_plan(folder / "plan.json")
    record = json.loads((folder / "choice.json").read_text(encoding="utf-8"))
    sized = at_size(run, plan.resize)
    return Choice(
        run=sized,
        plan=plan,
        program=reduce(sized.program, sized.channels, plan),
        combination=(plan.runtime, plan.precision),
        reason=record["reason"],
        candidates=tuple(record["candidates"]),
        rounds=tuple(from_plain(Round, entry) for entry in record["rounds"]),
    )


def decide(run: Run, baseline: Baseline, *, whole_allowed: bool = True) -> Choice:
    """The least damaging way under the budget; without `whole_allowed` something has to go.

    Raises:
        BudgetError: no way was found; carries the best plan, measured where it was measured.
    """
    whole = unpruned_choice(run, baseline) if whole_allowed else None
    if whole is not None:
        return whole
    entries = _entries(run, baseline)
    if not entries:
        raise BudgetError(
            f"no precision allowed is of use in {run.target.name}: {'; '.join(run.notes)}",
            hint="allow more with --precision fp32,int8,mixed, or a larger --max-drop",
        )
    best, passed_over = _least_damaging(entries), list[Mapping[str, object]]()
    for smaller in smaller_runs(run):
        least = _together(best) if best.solution.feasible else math.inf
        if size_damage(smaller) >= least:
            passed_over.append(_row_of_size(smaller))
            continue
        found = _entries(smaller, _smaller_baseline(smaller, baseline))
        entries += found
        best = min(best, _least_damaging(found), key=lambda e: (not e.solution.feasible, _together(e)))
    rows = [_row(entry, baseline, chosen=entry is best) for entry in entries]
    unit = "nats of divergence, summed" if run.data is not None else "of the criterion's score"
    reason = f"least damage under the budget ({best.damage:.2f} {unit}{_gap(best.solution)})"
    return close_loop(best.run, best.contender, best.ground, reason=reason, candidates=(*rows, *passed_over))


def with_model(run: Run, baseline: Baseline, choice: Choice) -> Choice:
    """The choice with its latency model, to go on from: one of an earlier run is decided anew to find it.

    On a target without a device there is none.
    """
    if choice.contender is None and run.target.calibration is None:
        return decide(run, baseline, whole_allowed=False)
    return choice


def decide_on_part(run: Run, baseline: Baseline, reason: str) -> Choice:
    """The least damaging way under the budget for a run whose input is a part of the baseline's.

    Raises:
        BudgetError: no way was found.
    """
    entries = _entries(run, _smaller_baseline(run, baseline))
    best = _least_damaging(entries)
    rows = tuple(_row(entry, baseline, chosen=entry is best) for entry in entries)
    return close_loop(run, best.contender, best.ground, reason=reason, candidates=rows)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A contender at one input size with its best plan; `damage` is all that the plan costs."""

    run: Run
    ground: Ground
    contender: Contender
    solution: Solution
    damage: float


def _entries(run: Run, baseline: Baseline) -> list[_Entry]:
    """Every contender at the run's input size, planned."""
    ground = ground_of(run)
    found = [_entry(run, ground, contender) for contender in contenders(run, baseline, ground)]
    for name in mixable(run, baseline):
        if _leaves_room(name, found):
            mixed = mixed_contenders(run, baseline, ground, name)
            found += [_entry(run, ground, contender) for contender in mixed]
    return found


def _entry(run: Run, ground: Ground, contender: Contender) -> _Entry:
    solution = plan_under(run, contender, ground)
    damage = _damage(run, solution, ground) + contender.damage + ground.size_damage
    return _Entry(run=run, ground=ground, contender=contender, solution=solution, damage=damage)


def _leaves_room(runtime: str, entries: Sequence[_Entry]) -> bool:
    """Whether int8 with some layers in float may beat every entry: slower than int8, it has to cut more."""
    best = min((entry.damage for entry in entries if entry.solution.feasible), default=math.inf)
    for entry in entries:
        if entry.contender.combination == (runtime, "int8"):
            least = entry.damage - entry.contender.damage
            return entry.solution.feasible and least < (1 - WORTHWHILE) * best
    return True  # int8 costs too many points: fewer layers in int8 may cost few enough


def _least_damaging(entries: Sequence[_Entry]) -> _Entry:
    return min(entries, key=lambda e: (not e.solution.feasible, e.damage))


def _together(entry: _Entry) -> float:
    """Nats of the whole plan measured at once: between sizes, sums of single damages mislead.

    Many small cuts cost more together than one by one; a size is measured whole.
    """
    plan = as_plan(entry.run, entry.contender, entry.solution, entry.ground)
    program = reduce(entry.run.program, entry.run.channels, plan)
    return damage_together(entry.run, program) + entry.contender.damage


def _smaller_baseline(run: Run, whole: Baseline) -> Baseline:
    """The original on smaller images, in the combinations that are acceptable at its own size; not scored."""
    origin = run.origin or run
    kept = [c for c in whole.measurements if acceptable(origin, whole, c)]
    return run.once(("baseline", tuple(kept)), partial(measure_baseline, run, kept, scored=False))


def _gap(solution: Solution) -> str:
    """How near to the least possible damage the solver knows to be."""
    return "" if solution.gap is None else f", at most {solution.gap:.1%} above the least possible"


def _row(entry: _Entry, baseline: Baseline, *, chosen: bool) -> Mapping[str, object]:
    """A candidate as the report shows it."""
    solution = entry.solution
    return {
        "runtime": entry.contender.combination[0],
        "precision": entry.contender.combination[1],
        "in_float": list(entry.contender.in_float),
        "resize": entry.run.resize,
        "estimate_ms": solution.amounts.get("ms"),
        "damage": entry.damage,
        "kept_ratio": entry.ground.shape.cost(solution.counts).params / baseline.cost.params,
        "chosen": chosen,
        "note": "" if solution.feasible else "even its smallest network misses the budget (estimate)",
    }


def _row_of_size(run: Run) -> Mapping[str, object]:
    """An input size that was not planned for."""
    return {
        "runtime": "any",
        "precision": "any",
        "in_float": [],
        "resize": run.resize,
        "estimate_ms": None,
        "damage": size_damage(run),
        "kept_ratio": 1.0,
        "chosen": False,
        "note": "the size alone costs more than the best plan so far: not timed",
    }


def _damage(run: Run, solution: Solution, ground: Ground) -> float:
    """What the solution removes: nats, each part measured alone; without data the share of all scores.

    The accuracy of the cut network before fine-tuning ranks deep cuts badly, so it is not asked.
    """
    if run.data is not None:
        return solution.damage
    total = sum(sum(values) for values in ground.damages.scores.values())
    return solution.damage / total if total else 0.0


def replay(run: Run, path: Path) -> Choice:
    """The choice that a saved plan describes, nothing decided anew.

    Raises:
        InputError: unreadable, or made for another network, runtime or precision.
    """
    plan = read_plan(path)
    fits = (plan.resize is None and plan.inputs is None) or plan.program == fingerprint(run.program)
    sized = at_view(at_size(run, plan.resize), plan.inputs) if fits else run
    if plan.connectivity == "mixed":
        sized = untied(sized)
    check_plan(plan, fingerprint(run.program), sized.channels)
    _require_runnable(run, plan)
    program = reduce(sized.program, sized.channels, plan)
    return Choice(
        run=sized,
        plan=plan,
        program=program,
        combination=(plan.runtime, plan.precision),
        reason=f"replayed from {path.name}",
        candidates=(),
    )


def _require_runnable(run: Run, plan: PrunePlan) -> None:
    """Refuse a plan for what the target does not run, or with layers in float that the network has not."""
    if not any(r.name == plan.runtime and r.runs(plan.precision) for r in run.target.runtimes):
        raise InputError(
            f"the plan is for {plan.runtime} {plan.precision}, which target '{run.target.name}' does not run",
            hint="choose the target the plan was made for",
        )
    unknown = set(plan.in_float) - {layer.weight for layer in layers(run.program)}
    if unknown:
        raise InputError(f"the plan keeps '{min(unknown)}' in float, which this network does not have")
    if bool(plan.in_float) != (plan.precision == "mixed"):
        raise InputError(
            f"the plan's precision is {plan.precision}, with {len(plan.in_float)} layers in float",
            hint="layers stay in float where the precision is mixed",
        )
