"""Deciding: the contenders (runtime x precision), and the plan that holds the budget.

Latency depends on widths, not on weights: the loop "plan, export, measure, correct the model, plan again"
therefore runs before any fine-tuning, at most `ROUNDS` times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from toolchain import registry
from toolchain.baseline import Baseline, acceptable
from toolchain.contracts import Criterion, Evidence, Sampling
from toolchain.errors import BudgetError, InputError
from toolchain.program.capture import fingerprint, switch
from toolchain.program.cost import CostModel
from toolchain.program.rewrite import apply
from toolchain.prune.plan import Limit, Solution, kept_units, solve
from toolchain.prune.planfile import check_plan, read_plan
from toolchain.run import Combination, Run, build_for, measure
from toolchain.tables import PlannedLatency, planned_latency
from toolchain.values import Estimate, Measurement, Precision, Program, PrunePlan

ROUNDS: Final = 3
AIM: Final = 0.95
"""Share of the budget that is planned for: room for the prediction's error and the interval's width."""
SPARE: Final = 0.85
"""A measured network under this share of the budget was cut too much: plan again with the corrected model."""
ROUND: Final = Sampling(trials=6, runs=50, trial_seconds=0.3)
EVIDENCE: Final = 1024
"""Training samples that a criterion sees."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One runtime and precision with its latency model (None when no latency is asked for)."""

    combination: Combination
    align: int
    model: PlannedLatency | None
    drop: float


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
    scores: Mapping[str, Sequence[float]] | None = None


def decide(run: Run, baseline: Baseline) -> Choice:
    """The least damaging way under the budget.

    Raises:
        BudgetError: no way was found; carries the best plan, measured where it was measured.
    """
    whole = _unpruned(run, baseline)
    if whole is not None:
        return whole
    scores = unit_scores(run)
    contenders = _contenders(run, baseline)
    solved = [(c, plan_under(run, c, scores, AIM)) for c in contenders]
    damages = [_damage(run, baseline, c, s, scores) for c, s in solved]
    order = sorted(range(len(solved)), key=lambda i: (not solved[i][1].feasible, damages[i]))
    best = order[0]
    rows = tuple(
        {
            "runtime": c.combination[0],
            "precision": c.combination[1],
            "estimate_ms": s.amounts.get("ms"),
            "damage": damages[i],
            "kept_ratio": CostModel.of_program(run.program, run.channels).of(s.counts).params
            / baseline.cost.params,
            "chosen": i == best,
            "note": "" if s.feasible else "even its smallest network misses the budget (estimate)",
        }
        for i, (c, s) in enumerate(solved)
    )
    unit = "points before fine-tuning" if run.data is not None else "of the criterion's score"
    reason = f"least damage under the budget ({damages[best]:.2f} {unit})"
    return close_loop(run, contenders[best], scores, reason=reason, candidates=rows)


def unit_scores(run: Run) -> Mapping[str, tuple[float, ...]]:
    """The criterion's scores; `auto` is taylor with data and magnitude without."""
    name = run.request.criterion
    if name == "auto":
        name = "taylor" if run.data is not None else "magnitude"
    criterion: Criterion = registry.find("toolchain.prune.criteria", "CRITERION", name, kind="criterion")
    batches = (run.data.calibration(EVIDENCE),) if run.data is not None and criterion.needs_data else ()
    with run.stage(f"Scores of the channels ({name})", "plan"):
        return criterion.score(run.program, run.channels, Evidence(batches=batches, seed=run.request.seed))


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


def _contenders(run: Run, baseline: Baseline) -> tuple[Contender, ...]:
    """Per precision the fastest acceptable runtime, with its latency model."""
    fastest: dict[Precision, Combination] = {}
    for combination in sorted(baseline.measurements, key=lambda c: baseline.measurements[c].p50_ms):
        if acceptable(run, baseline, combination):
            fastest.setdefault(combination[1], combination)
    found = []
    for combination in fastest.values():
        model = None
        if run.request.budget.ms is not None:
            with run.stage(f"Layer timings on the target ({combination[0]}, {combination[1]})", "measure"):
                model = planned_latency(run, combination, baseline.measurements[combination])
        found.append(
            Contender(
                combination=combination,
                align=run.runtime(combination[0]).align,
                model=model,
                drop=max(baseline.drops.get(combination, 0.0), 0.0),
            )
        )
    return tuple(found)


def plan_under(run: Run, contender: Contender, scores: Mapping[str, Sequence[float]], aim: float) -> Solution:
    """Solve for the contender; `aim` is the share of the millisecond budget that is planned for."""
    with run.stage("Solving for the budget", "plan"):
        return solve(run.channels, scores, limits(run, contender, aim), align=contender.align)


def limits(run: Run, contender: Contender, aim: float) -> tuple[Limit, ...]:
    """The request's budget as limits on kept counts."""
    budget, costs = run.request.budget, CostModel.of_program(run.program, run.channels)
    found: list[Limit] = []
    if budget.ms is not None and contender.model is not None:
        found.append(Limit(name="ms", limit=budget.ms * aim, amount=contender.model.ms_of_counts))
    if budget.mb is not None:
        per_weight = 1.0 if contender.combination[1] == "int8" else 4.0
        found.append(
            Limit(name="mb", limit=budget.mb * aim, amount=lambda c: costs.of(c).params * per_weight / 1e6)
        )
    if budget.macs is not None:
        found.append(Limit(name="macs", limit=budget.macs, amount=lambda c: costs.of(c).macs))
    if budget.params is not None:
        found.append(Limit(name="params", limit=budget.params, amount=lambda c: costs.of(c).params))
    if budget.neurons is not None:
        found.append(Limit(name="neurons", limit=budget.neurons, amount=lambda c: costs.of(c).neurons))
    return tuple(found)


def _damage(
    run: Run,
    baseline: Baseline,
    contender: Contender,
    solution: Solution,
    scores: Mapping[str, Sequence[float]],
) -> float:
    """Points lost by the pruned network before any fine-tuning, plus what its precision costs.

    Judged on training samples, so that the validation part stays unseen by decisions. Without data: the
    share of the criterion's score that is removed.
    """
    if run.data is None or baseline.score is None:
        total = sum(sum(values) for values in scores.values())
        return solution.damage / total if total else 0.0
    kept = kept_units(scores, solution.counts)
    pruned = apply(run.program, run.channels, kept) if kept else run.program
    with run.stage("Damage of the candidate", "evaluate"):
        before = _on_training_samples(run, run.program)
        after = _on_training_samples(run, pruned)
    lost = before - after if run.metric.higher_is_better else after - before
    return lost + contender.drop


def _on_training_samples(run: Run, program: Program) -> float:
    assert run.data is not None
    inputs, target = run.data.calibration(EVIDENCE)
    network = switch(program, training=False)
    return run.metric.of_batch(network, inputs, target)


def as_plan(
    run: Run, contender: Contender, solution: Solution, keep: Mapping[str, tuple[int, ...]]
) -> PrunePlan:
    """The solution as a plan that can be saved and replayed."""
    ms = solution.amounts.get("ms")
    criterion = run.request.criterion
    if criterion == "auto":
        criterion = "taylor" if run.data is not None else "magnitude"
    estimate = None
    if ms is not None:
        source = (
            f"layer timings of {contender.combination[0]} {contender.combination[1]} on {run.target.name}"
        )
        estimate = Estimate(ms=ms, source=source)
    return PrunePlan(
        program=fingerprint(run.program),
        criterion=criterion,
        keep=keep,
        runtime=contender.combination[0],
        precision=contender.combination[1],
        estimate=estimate,
        cost=CostModel.of_program(run.program, run.channels).of(solution.counts),
        damage=solution.damage,
        seed=run.request.seed,
    )


def close_loop(
    run: Run,
    contender: Contender,
    scores: Mapping[str, Sequence[float]],
    *,
    reason: str,
    candidates: tuple[Mapping[str, object], ...],
) -> Choice:
    """Plan, export, measure; correct the model and plan again while the measurement says so.

    Raises:
        BudgetError: no measured network held the budget within `ROUNDS` rounds.
    """

    def made(plan: PrunePlan, program: Program) -> Choice:
        return Choice(
            plan=plan,
            program=program,
            combination=contender.combination,
            reason=reason,
            candidates=candidates,
        )

    rounds: list[Round] = []
    held: Choice | None = None
    nearest: tuple[float, PrunePlan] | None = None
    for number in range(1, ROUNDS + 1):
        solution = plan_under(run, contender, scores, AIM)
        keep = kept_units(scores, solution.counts)
        plan = as_plan(run, contender, solution, keep)
        if contender.model is None or run.request.budget.ms is None:
            if not solution.feasible:
                raise _unreachable(run, plan, None)
            program = apply(run.program, run.channels, keep)
            return made(plan, program)
        if held is not None and plan.keep == held.plan.keep:
            break
        program = apply(run.program, run.channels, keep)
        measured = _round_measurement(run, contender, program, number)
        limit = run.request.budget.ms
        contender = replace(contender, model=contender.model.corrected(solution.counts, measured.p50_ms))
        holds, spare = measured.p50_high_ms <= limit, measured.p50_ms < SPARE * limit
        better = holds and (held is None or plan.damage < held.plan.damage)
        if nearest is None or measured.p50_ms < nearest[0]:
            nearest = (measured.p50_ms, plan)
        decision = (
            "held" if holds and not spare else "held with room: plan again" if holds else "over: plan again"
        )
        rounds.append(
            Round(number=number, estimate_ms=solution.amounts["ms"], measured=measured, decision=decision)
        )
        if better:
            held = made(plan, program)
        if (holds and not spare) or (not holds and not solution.feasible):
            break
    if held is None:
        assert nearest is not None
        raise _unreachable(run, nearest[1], nearest[0])
    return replace(held, contender=contender, scores=scores, rounds=tuple(rounds))


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
    if contender is None or contender.model is None or choice.scores is None:
        return None
    counts = {g.name: len(choice.plan.keep.get(g.name, range(g.size))) for g in run.channels.groups}
    contender = replace(contender, model=contender.model.corrected(counts, measured_ms))
    again = close_loop(run, contender, choice.scores, reason=choice.reason, candidates=choice.candidates)
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
    program = apply(run.program, run.channels, plan.keep) if plan.keep else run.program
    return Choice(
        plan=plan,
        program=program,
        combination=(plan.runtime, plan.precision),
        reason=f"replayed from {path.name}",
        candidates=(),
    )
