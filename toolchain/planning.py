"""Deciding: which runtime, which precision, and the plan that holds the budget with the least damage."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toolchain.assembly import open_session, runner
from toolchain.baseline import Baseline, acceptable, measure_baseline
from toolchain.closing import Choice, Round, close_loop
from toolchain.contest import (
    Contender,
    Ground,
    as_plan,
    bytes_per_weight,
    ground_of,
    plan_under,
    reduce,
    size_damage,
    unpruned,
    within,
)
from toolchain.damage import axes_of, damage_together, divergence_of, judged
from toolchain.errors import InputError
from toolchain.plain import from_plain, to_plain
from toolchain.program.capture import fingerprint
from toolchain.prune.plan import Solution
from toolchain.prune.planfile import check_plan, plan_text, read_plan
from toolchain.run import Run
from toolchain.sizing import at_size, smaller_runs
from toolchain.timing import planned_latency
from toolchain.values import Artifact


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
        "target": request.target,
        "data": None if run.data is None else [run.data.fingerprint(), to_plain(request.preprocessing)],
        "budget": to_plain(request.budget),
        "asked": [request.criterion, request.runtime, request.precisions, request.metric, request.threads],
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
    whole = _unpruned(run, baseline) if whole_allowed else None
    if whole is not None:
        return whole
    entries = _entries(run, baseline)
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
    ground, found = ground_of(run), []
    for contender in _contenders(run, baseline, ground):
        solution = plan_under(run, contender, ground)
        damage = _damage(run, solution, ground) + contender.damage + ground.size_damage
        found.append(_Entry(run=run, ground=ground, contender=contender, solution=solution, damage=damage))
    return found


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
        "resize": run.resize,
        "estimate_ms": None,
        "damage": size_damage(run),
        "kept_ratio": 1.0,
        "chosen": False,
        "note": "the size alone costs more than the best plan so far: not timed",
    }


def _unpruned(run: Run, baseline: Baseline) -> Choice | None:
    """The original itself, in the first precision that already holds every limit; None if none does."""
    budget = run.request.budget
    if not within(budget, baseline.cost):
        return None
    holding = []
    for combination, artifact in baseline.artifacts.items():
        measured = baseline.measurements[combination]
        fast = budget.ms is None or measured.p50_high_ms < budget.ms
        small = budget.mb is None or artifact.size_bytes <= budget.mb * 1e6
        if fast and small and acceptable(run, baseline, combination):
            holding.append(combination)
    if not holding:
        return None
    combination = min(holding, key=lambda c: (c[1] != "fp32", baseline.measurements[c].p50_ms))
    plan = unpruned(run, combination, baseline.cost)
    how = "as it is" if combination[1] == "fp32" else f"by {combination[1]} alone, nothing pruned"
    rows = tuple(
        {
            "runtime": c[0],
            "precision": c[1],
            "resize": None,
            "estimate_ms": None,
            "damage": max(baseline.drops.get(c, 0.0), 0.0),
            "kept_ratio": 1.0,
            "chosen": c == combination,
            "note": "holds the budget unpruned (measured)",
        }
        for c in holding
    )
    return Choice(
        run=run,
        plan=plan,
        program=run.program,
        combination=combination,
        reason=f"the network holds the budget {how}",
        candidates=rows,
    )


def _contenders(run: Run, baseline: Baseline, ground: Ground) -> tuple[Contender, ...]:
    """Every acceptable runtime and precision, with its latency model.

    The runtime that is fastest on the original need not be fastest on what is left of it.
    """
    found = []
    for combination in baseline.measurements:
        if not acceptable(run, baseline, combination):
            continue
        align = run.runtime(combination[0]).align
        model = None
        if run.request.budget.ms is not None:
            ladders = {axis.name: axis.levels for axis in axes_of(run, ground.damages, align)}
            with run.stage(f"Layer timings on the target ({' '.join(combination)})", "measure"):
                model = run.once(
                    ("latency", combination),
                    partial(planned_latency, run, ground.shape, combination, baseline, ladders),
                )
        artifact = baseline.artifacts[combination]
        weights = baseline.cost.params * bytes_per_weight(combination[1])
        found.append(
            Contender(
                combination=combination,
                align=align,
                model=model,
                damage=run.once(("damage", combination), partial(_quantization_damage, run, artifact)),
                overhead_bytes=max(artifact.size_bytes - weights, 0.0),
            )
        )
    return tuple(found)


def _damage(run: Run, solution: Solution, ground: Ground) -> float:
    """What the solution removes: nats, each part measured alone; without data the share of all scores.

    The accuracy of the cut network before fine-tuning ranks deep cuts badly, so it is not asked.
    """
    if run.data is not None:
        return solution.damage
    total = sum(sum(values) for values in ground.damages.scores.values())
    return solution.damage / total if total else 0.0


def _quantization_damage(run: Run, artifact: Artifact) -> float:
    """Nats by which a quantized file of the original diverges from it."""
    session = open_session(artifact)
    if run.data is None or artifact.precision == "fp32" or session is None:
        return 0.0
    return divergence_of(runner(session), run.program, judged(run.data))


def replay(run: Run, path: Path) -> Choice:
    """The choice that a saved plan describes, nothing decided anew.

    Raises:
        InputError: unreadable, or made for another network, runtime or precision.
    """
    plan = read_plan(path)
    fits = plan.resize is None or plan.program == fingerprint(run.program)
    sized = at_size(run, plan.resize) if fits else run
    check_plan(plan, fingerprint(run.program), sized.channels)
    known = [(r.name, p) for r in run.target.runtimes for p in r.precisions]
    if (plan.runtime, plan.precision) not in known:
        raise InputError(
            f"the plan is for {plan.runtime} {plan.precision}, which target '{run.target.name}' does not run",
            hint="choose the target the plan was made for",
        )
    program = reduce(sized.program, sized.channels, plan)
    return Choice(
        run=sized,
        plan=plan,
        program=program,
        combination=(plan.runtime, plan.precision),
        reason=f"replayed from {path.name}",
        candidates=(),
    )
