"""Deciding for a device that is not at hand: against its calibrated models, never called measured.

Given:  a run whose target has calibrated models and no driver
Result: a `Choice` whose predicted latency is under the budget
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from toolchain.baseline import allowed_drop, quantization_drop
from toolchain.closing import Choice
from toolchain.contenders import quantization_damage
from toolchain.contest import Contender, as_plan, ground_of, plan_under, reduce, size_damage, unpruned, within
from toolchain.errors import BudgetError
from toolchain.latency.calibrated import Calibration, predict
from toolchain.latency.foretold import foretold
from toolchain.latency.operators import operators
from toolchain.outlook import STATUS, combination_of, models_of
from toolchain.program.cost import cost
from toolchain.resources import PlannedLatency
from toolchain.run import Combination, Run, build_for
from toolchain.sizing import smaller_runs
from toolchain.values import Program, PrunePlan

ROUNDS: Final = 4
SPARE: Final = 0.9
"""Planned again while the exact prediction is under this share of the budget."""


def foresee(run: Run) -> Choice:
    """The least damaging network whose predicted latency is under the budget, in float or in int8.

    Every plan is predicted again operator by operator, and the planner's coarser sums corrected by that. What
    int8 costs is measured here, on the very file: it runs on this machine too.

    Raises:
        BudgetError: no plan's prediction is under the budget; carries the nearest.
    """
    models = _acceptable(run)
    for model in models:
        combination = combination_of(run, model)
        whole = predict(model, operators(run.program)).estimate
        if _holds(run, whole.ms):
            plan = replace(unpruned(run, combination, cost(run.program)), estimate=whole)
            how = f"by {combination[1]} alone" if combination[1] == "int8" else "as it is"
            reason = f"the network holds the budget {how}, by the prediction"
            return _choice(run, run.program, plan, reason, ())
    tried = [t for model in models for t in _foreseen(run, model)]
    for smaller in smaller_runs(run):
        least = min((t.damage for t in tried if t.held), default=math.inf)
        if size_damage(smaller) < least:
            tried += [t for model in models for t in _foreseen(smaller, model)]
    return _least_damaging(run, tried)


def foresee_again(run: Run, combination: Combination) -> Choice:
    """`foresee` for a runtime and precision that are chosen already, at the run's own input size."""
    model = next(m for m in models_of(run) if combination_of(run, m) == combination)
    return _least_damaging(run, _foreseen(run, model))


def foreseen_contender(run: Run, combination: Combination) -> Contender:
    """The contender that `foresee_again` plans for."""
    return _contender(run, next(m for m in models_of(run) if combination_of(run, m) == combination))


def _acceptable(run: Run) -> tuple[Calibration, ...]:
    """The request's models, less int8 where it costs too much accuracy or is not even predicted to be faster.

    Raises:
        BudgetError: none is left.
    """
    found: list[Calibration] = []
    for model in models_of(run):
        reason = _objection(run, model, found) if model.precision == "int8" else ""
        if reason:
            run.notes.append(f"int8 in {model.runtime} {reason}: not used")
        else:
            found.append(model)
    if not found:
        raise BudgetError(
            f"no precision allowed is of use in {run.target.name}: {'; '.join(run.notes)}",
            hint="allow fp32 with --precision, or a larger --max-drop",
        )
    return tuple(found)


def _objection(run: Run, model: Calibration, others: Sequence[Calibration]) -> str:
    """What speaks against int8; empty where nothing does."""
    own = operators(run.program)
    times = [predict(one, own).estimate.ms for one in (model, *others)]
    if run.request.budget.ms is not None and len(times) > 1 and times[0] >= min(times[1:]):
        return f"is predicted to take {times[0]:.4g} ms, float {min(times[1:]):.4g} ms"
    combination = combination_of(run, model)
    artifact = build_for(run, run.program, [combination])[combination]
    with run.stage("Metric of the quantized original", "evaluate"):
        drop, allowed = quantization_drop(run, artifact), allowed_drop(run)
    return f"costs {drop:.2f} points by itself (allowed: {allowed:g})" if drop > allowed else ""


@dataclass(frozen=True, kw_only=True)
class _Foreseen:
    """A plan with its exact prediction, whether that is under every limit, and all that it costs in nats."""

    run: Run
    plan: PrunePlan
    program: Program
    held: bool
    damage: float


def _foreseen(run: Run, model: Calibration) -> list[_Foreseen]:
    """Plans at the run's input size, each after the sums were corrected by the last one's prediction."""
    budget, ground = run.request.budget, ground_of(run)
    contender = _contender(run, model)
    tried: list[_Foreseen] = []
    for _ in range(ROUNDS):
        solution = plan_under(run, contender, ground)
        plan = as_plan(run, contender, solution, ground)
        program = reduce(run.program, run.channels, plan)
        exact = predict(model, operators(program)).estimate
        held = solution.feasible and (budget.ms is None or exact.ms <= budget.ms)
        tried.append(
            _Foreseen(
                run=run,
                plan=replace(plan, estimate=exact),
                program=program,
                held=held,
                damage=plan.damage + contender.damage,
            )
        )
        if budget.ms is None or (held and exact.ms >= SPARE * budget.ms) or contender.model is None:
            break
        contender = replace(contender, model=contender.model.corrected(solution.counts, exact.ms))
    return tried


def _contender(run: Run, model: Calibration) -> Contender:
    """The model's runtime and precision, its sums over layers corrected by the exact prediction."""
    combination, shape = combination_of(run, model), ground_of(run).shape
    own = operators(run.program)
    sums = PlannedLatency(model=foretold(model, own, shape.layers), shape=shape)
    whole_ms = predict(model, own).estimate.ms
    return Contender(
        combination=combination,
        align=run.runtime(model.runtime).align,
        model=None if run.request.budget.ms is None else sums.corrected({}, whole_ms),
        damage=_precision_damage(run, combination),
    )


def _precision_damage(run: Run, combination: Combination) -> float:
    """Nats that int8 alone costs, on the file that the device would run."""
    if combination[1] != "int8":
        return 0.0
    return quantization_damage(run, combination, build_for(run, run.program, [combination])[combination])


def _least_damaging(run: Run, tried: Sequence[_Foreseen]) -> Choice:
    holding = [t for t in tried if t.held]
    if not holding:
        nearest = min((t.plan for t in tried), key=lambda p: p.estimate.ms if p.estimate else 0.0)
        found = "" if nearest.estimate is None else f", {nearest.estimate.ms:.4g} ms"
        raise BudgetError(
            f"no plan reaches the budget on {run.request.target}: the nearest is predicted{found}",
            hint="a larger budget, or a smaller network to begin with",
            plan=nearest,
        )
    best = min(holding, key=lambda t: t.damage)
    reason = "least damage under the budget, by the prediction"
    return _choice(best.run, best.program, best.plan, reason, _rows(tried, best))


def _rows(tried: Sequence[_Foreseen], best: _Foreseen) -> tuple[Mapping[str, object], ...]:
    """The best plan of every size and precision, as the report shows candidates."""
    kept: dict[object, _Foreseen] = {}
    for one in sorted(tried, key=lambda t: (t is not best, not t.held, t.damage)):
        kept.setdefault((one.plan.resize, one.plan.runtime, one.plan.precision), one)
    whole = cost(best.run.given).params
    return tuple(
        {
            "runtime": one.plan.runtime,
            "precision": one.plan.precision,
            "in_float": [],
            "resize": one.plan.resize,
            "estimate_ms": None if one.plan.estimate is None else one.plan.estimate.ms,
            "damage": one.damage,
            "kept_ratio": cost(one.program).params / whole,
            "chosen": one is best,
            "note": "" if one.held else "misses the budget (predicted)",
        }
        for one in kept.values()
    )


def _holds(run: Run, ms: float) -> bool:
    """Whether the original itself is under every limit; the size of a file is known only once it is made."""
    budget = run.request.budget
    fast = budget.ms is None or ms <= budget.ms
    return fast and budget.mb is None and within(budget, cost(run.program))


def _choice(
    run: Run, program: Program, plan: PrunePlan, reason: str, candidates: tuple[Mapping[str, object], ...]
) -> Choice:
    return Choice(
        run=run,
        plan=plan,
        program=program,
        combination=(plan.runtime, plan.precision),
        reason=f"{reason} ({STATUS})",
        candidates=candidates,
    )
