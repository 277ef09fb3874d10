"""Deciding: the contenders (runtime x precision), and the plan that holds the budget.

Latency depends on widths, not on weights: the loop "plan, export, measure, correct the model, plan again"
therefore runs before any fine-tuning, at most `ROUNDS` times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from toolchain.baseline import Baseline, acceptable
from toolchain.contracts import Batch, Sampling
from toolchain.damage import Damages, axes_of, measure_damages
from toolchain.errors import BudgetError, InputError
from toolchain.program.blocks import drop
from toolchain.program.capture import fingerprint
from toolchain.program.rewrite import apply
from toolchain.prune.plan import Limit, Solution, kept_units, solve
from toolchain.prune.planfile import check_plan, read_plan
from toolchain.resources import BLOCK, PlannedLatency, Shape, planned_latency, shape_of
from toolchain.run import Combination, Run, build_for, measure
from toolchain.train.loop import reestimate_statistics
from toolchain.train.metric import program_runner
from toolchain.values import Channels, Estimate, Measurement, Program, PrunePlan

ROUNDS: Final = 3
AIM: Final = 0.95
"""Share of the budget that is planned for: room for the prediction's error and the interval's width."""
SPARE: Final = 0.85
"""A measured network under this share of the budget was cut too much: plan again with the corrected model."""
ROUND: Final = Sampling(trials=6, runs=50, trial_seconds=0.3)
JUDGED: Final = 1024
"""Training samples on which candidates are compared."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One runtime and precision with its latency model (None when no latency is asked for)."""

    combination: Combination
    align: int
    model: PlannedLatency | None
    drop: float


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all contenders are planned on: the network's shape and the damage of removing its parts."""

    shape: Shape
    damages: Damages


@dataclass(frozen=True, kw_only=True)
class Round:
    """One turn of the closed loop: what was predicted, what was measured, what followed."""

    number: int
    estimate_ms: float | None
    measured: Measurement | None
    decision: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The plan decided on, the program it gives, and how the decision came about."""

    plan: PrunePlan
    program: Program
    combination: Combination
    reason: str
    candidates: tuple[Mapping[str, object], ...]
    rounds: tuple[Round, ...] = ()
    contender: Contender | None = None
    ground: Ground | None = None


def decide(run: Run, baseline: Baseline) -> Choice:
    """The least damaging way under the budget.

    Raises:
        BudgetError: no way was found; carries the best plan, measured where it was measured.
    """
    whole = _unpruned(run, baseline)
    if whole is not None:
        return whole
    shape = shape_of(run)
    ground = Ground(shape=shape, damages=measure_damages(run, shape))
    contenders = _contenders(run, baseline, ground)
    solved = [(c, plan_under(run, c, ground)) for c in contenders]
    lost = [_damage(run, c, s, ground) for c, s in solved]
    best = min(range(len(solved)), key=lambda i: (not solved[i][1].feasible, lost[i]))
    rows = tuple(
        _row(c, s, lost[i], shape.cost(s.counts).params / baseline.cost.params, chosen=i == best)
        for i, (c, s) in enumerate(solved)
    )
    unit = "points before fine-tuning" if run.data is not None else "of the criterion's score"
    reason = f"least damage under the budget ({lost[best]:.2f} {unit})"
    return close_loop(run, contenders[best], ground, reason=reason, candidates=rows)


def _row(
    contender: Contender, solution: Solution, damage: float, kept_ratio: float, *, chosen: bool
) -> Mapping[str, object]:
    """A candidate as the report shows it."""
    return {
        "runtime": contender.combination[0],
        "precision": contender.combination[1],
        "estimate_ms": solution.amounts.get("ms"),
        "damage": damage,
        "kept_ratio": kept_ratio,
        "chosen": chosen,
        "note": "" if solution.feasible else "even its smallest network misses the budget (estimate)",
    }


def _unpruned(run: Run, baseline: Baseline) -> Choice | None:
    """The original itself, in the first precision that already holds every limit; None if none does."""
    budget = run.request.budget
    costs = ((budget.macs, baseline.cost.macs), (budget.params, baseline.cost.params))
    costs += ((budget.neurons, baseline.cost.neurons),)
    if any(limit is not None and amount > limit for limit, amount in costs):
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
    plan = PrunePlan(
        program=fingerprint(run.program),
        criterion="none",
        keep={},
        runtime=combination[0],
        precision=combination[1],
        cost=baseline.cost,
        seed=run.request.seed,
    )
    how = "as it is" if combination[1] == "fp32" else f"by {combination[1]} alone, nothing pruned"
    rows = tuple(
        {
            "runtime": c[0],
            "precision": c[1],
            "estimate_ms": None,
            "damage": max(baseline.drops.get(c, 0.0), 0.0),
            "kept_ratio": 1.0,
            "chosen": c == combination,
            "note": "holds the budget unpruned (measured)",
        }
        for c in holding
    )
    return Choice(
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
                model = planned_latency(run, ground.shape, combination, baseline, ladders)
        drop_points = max(baseline.drops.get(combination, 0.0), 0.0)
        found.append(Contender(combination=combination, align=align, model=model, drop=drop_points))
    return tuple(found)


def plan_under(run: Run, contender: Contender, ground: Ground) -> Solution:
    """Solve for the contender under the request's budget."""
    with run.stage("Solving for the budget", "plan"):
        return solve(axes_of(run, ground.damages, contender.align), limits(run, contender, ground.shape))


def limits(run: Run, contender: Contender, shape: Shape) -> tuple[Limit, ...]:
    """The request's budget as limits on counts; time and file size with room for the prediction's error."""
    budget = run.request.budget
    found: list[Limit] = []
    if budget.ms is not None and contender.model is not None:
        found.append(Limit(name="ms", limit=budget.ms * AIM, amount=contender.model.ms_of_counts))
    if budget.mb is not None:
        per_weight = 1.0 if contender.combination[1] == "int8" else 4.0
        found.append(
            Limit(name="mb", limit=budget.mb * AIM, amount=lambda c: shape.cost(c).params * per_weight / 1e6)
        )
    if budget.macs is not None:
        found.append(Limit(name="macs", limit=budget.macs, amount=lambda c: shape.cost(c).macs))
    if budget.params is not None:
        found.append(Limit(name="params", limit=budget.params, amount=lambda c: shape.cost(c).params))
    if budget.neurons is not None:
        found.append(Limit(name="neurons", limit=budget.neurons, amount=lambda c: shape.cost(c).neurons))
    return tuple(found)


def reduce(program: Program, channels: Channels, plan: PrunePlan) -> Program:
    """The program that a plan describes: channels cut, then blocks dropped."""
    cut = apply(program, channels, plan.keep) if plan.keep else program
    return drop(cut, plan.dropped)


def _damage(run: Run, contender: Contender, solution: Solution, ground: Ground) -> float:
    """Points lost by the pruned network before any fine-tuning, plus what its precision costs.

    Judged on training samples, so that the validation part stays unseen by decisions. Without data: the
    share of the criterion's score that is removed.
    """
    if run.data is None:
        total = sum(sum(values) for values in ground.damages.scores.values())
        return solution.damage / total if total else 0.0
    batch = run.data.calibration(JUDGED)
    pruned = reduce(run.program, run.channels, as_plan(run, contender, solution, ground))
    with run.stage("Damage of the candidate", "plan"):
        before = _on(run, run.program, batch)
        after = _on(run, reestimate_statistics(pruned, (batch,)), batch)
    return (before - after if run.metric.higher_is_better else after - before) + contender.drop


def _on(run: Run, program: Program, batch: Batch) -> float:
    inputs, target = batch
    with torch.no_grad():
        outputs = program_runner(program)(inputs)
    return run.metric.mean(outputs, target)


def as_plan(run: Run, contender: Contender, solution: Solution, ground: Ground) -> PrunePlan:
    """The solution as a plan that can be saved and replayed."""
    dropped = tuple(b.name for b in ground.shape.blocks if solution.counts.get(BLOCK + b.name, 1) == 0)
    ms, estimate = solution.amounts.get("ms"), None
    if ms is not None:
        source = f"layer timings of {' '.join(contender.combination)} on {run.target.name}"
        estimate = Estimate(ms=ms, source=source)
    return PrunePlan(
        program=fingerprint(run.program),
        criterion=ground.damages.criterion,
        keep=kept_units(ground.damages.scores, solution.counts),
        dropped=dropped,
        runtime=contender.combination[0],
        precision=contender.combination[1],
        estimate=estimate,
        cost=ground.shape.cost(solution.counts),
        damage=solution.damage,
        seed=run.request.seed,
    )


def close_loop(
    run: Run,
    contender: Contender,
    ground: Ground,
    *,
    reason: str,
    candidates: tuple[Mapping[str, object], ...],
) -> Choice:
    """Plan, export, measure; correct the model and plan again while the measurement says so.

    Raises:
        BudgetError: no measured network held the budget within `ROUNDS` rounds.
    """
    rounds: list[Round] = []
    tried: list[tuple[Measurement, PrunePlan, Program]] = []
    limit = run.request.budget.ms
    for number in range(1, ROUNDS + 1):
        solution = plan_under(run, contender, ground)
        plan = as_plan(run, contender, solution, ground)
        program = reduce(run.program, run.channels, plan)
        if contender.model is None or limit is None:
            if not solution.feasible:
                raise _unreachable(run, plan, None)
            return Choice(
                plan=plan,
                program=program,
                combination=contender.combination,
                reason=reason,
                candidates=candidates,
            )
        if any(_same(plan, other) for _, other, _ in tried):
            break
        measured = _round_measurement(run, contender, program, number)
        tried.append((measured, plan, program))
        contender = replace(contender, model=contender.model.corrected(solution.counts, measured.p50_ms))
        decision, done = _decision(measured, limit, solution)
        rounds.append(
            Round(number=number, estimate_ms=solution.amounts["ms"], measured=measured, decision=decision)
        )
        if done:
            break
    held = [entry for entry in tried if limit is not None and entry[0].p50_high_ms <= limit]
    if not held:
        nearest = min(tried, key=lambda entry: entry[0].p50_ms)
        raise _unreachable(run, nearest[1], nearest[0].p50_ms)
    _, plan, program = min(held, key=lambda entry: entry[1].damage)
    return Choice(
        plan=plan,
        program=program,
        combination=contender.combination,
        reason=reason,
        candidates=candidates,
        rounds=tuple(rounds),
        contender=contender,
        ground=ground,
    )


def _decision(measured: Measurement, limit: float, solution: Solution) -> tuple[str, bool]:
    """What a round's measurement means, and whether planning ends with it."""
    if measured.p50_high_ms > limit:
        if solution.feasible:
            return "over: plan again", False
        return "over, and nothing smaller is left", True
    if measured.p50_ms < SPARE * limit and solution.counts:
        return "held with room: plan again", False
    return "held", True


def _same(plan: PrunePlan, other: PrunePlan) -> bool:
    return plan.keep == other.keep and plan.dropped == other.dropped


def _round_measurement(run: Run, contender: Contender, program: Program, number: int) -> Measurement:
    with run.stage(f"Files of the candidate (round {number})", "export"):
        artifact = build_for(run, program, [contender.combination])[contender.combination]
    with run.stage(f"Latency of the candidate (round {number})", "measure"):
        return measure(run, [artifact], ROUND)[0]


def _unreachable(run: Run, plan: PrunePlan, measured_ms: float | None) -> BudgetError:
    budget = run.request.budget
    if measured_ms is not None:
        message = (
            f"budget {budget.ms:g} ms not reached on {run.target.name}: the best plan measures "
            f"{measured_ms:.4f} ms ({plan.runtime}, {plan.precision})"
        )
    else:
        message = f"budget not reached: the smallest network considered still needs {plan.cost}"
    return BudgetError(
        message, hint="raise the budget, or allow more: --precision fp32,int8, --runtime auto", plan=plan
    )


def close_loop_again(run: Run, choice: Choice, measured_ms: float) -> Choice | None:
    """After a final measurement over the budget: correct the model by it and close the loop anew.

    None when the choice was not planned here (nothing to correct).

    Raises:
        BudgetError: the corrected model finds no way.
    """
    contender = choice.contender
    if contender is None or contender.model is None or choice.ground is None:
        return None
    counts = {name: len(units) for name, units in choice.plan.keep.items()}
    counts |= {BLOCK + name: 0 for name in choice.plan.dropped}
    contender = replace(contender, model=contender.model.corrected(counts, measured_ms))
    again = close_loop(run, contender, choice.ground, reason=choice.reason, candidates=choice.candidates)
    return replace(again, rounds=(*choice.rounds, *again.rounds))


def replay(run: Run, path: Path) -> Choice:
    """The choice that a saved plan describes, nothing decided anew.

    Raises:
        InputError: unreadable, or made for another network, runtime or precision.
    """
    plan = read_plan(path)
    check_plan(plan, fingerprint(run.program), run.channels)
    known = [(r.name, p) for r in run.target.runtimes for p in r.precisions]
    if (plan.runtime, plan.precision) not in known:
        raise InputError(
            f"the plan is for {plan.runtime} {plan.precision}, which target '{run.target.name}' does not run",
            hint="choose the target the plan was made for",
        )
    program = reduce(run.program, run.channels, plan)
    return Choice(
        plan=plan,
        program=program,
        combination=(plan.runtime, plan.precision),
        reason=f"replayed from {path.name}",
        candidates=(),
    )
