"""Deciding for a device that is not at hand: against its calibrated model, never called measured.

Given:  a run whose target has calibrated models and no driver
Result: a `Choice` whose predicted latency is under the budget, and what the report has to say about it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from toolchain import registry
from toolchain.assembly import FLOAT_OF
from toolchain.baseline import Baseline, combinations
from toolchain.closing import Choice
from toolchain.contest import Contender, as_plan, ground_of, plan_under, reduce, size_damage, unpruned, within
from toolchain.contracts import Progress, Runtime, Sampling, Target
from toolchain.errors import BudgetError, DeviceError, InputError
from toolchain.latency.calibrated import Calibration, Calibrations, Prediction, choose, predict, read
from toolchain.latency.foretold import foretold
from toolchain.latency.operators import operators
from toolchain.program.cost import cost
from toolchain.resources import PlannedLatency
from toolchain.run import Combination, Run
from toolchain.sizing import smaller_runs
from toolchain.train.metric import evaluate, program_runner
from toolchain.values import (
    Artifact,
    Conditions,
    Layer,
    Measurement,
    Precision,
    Program,
    PrunePlan,
)

STATUS: Final = "predicted, not verified on the device"
ROUNDS: Final = 4
SPARE: Final = 0.9
"""Planned again while the exact prediction is under this share of the budget."""


@dataclass(frozen=True, kw_only=True)
class Absent:
    """The device of a target that no driver reaches: whatever is asked of it fails with one clear line."""

    target: Target

    def conditions(self, runtime: Runtime, threads: int) -> Conditions:
        """Unknown."""
        raise self._error()

    def measure(
        self, artifacts: Sequence[Artifact], protocol: Sampling, progress: Progress
    ) -> tuple[Measurement, ...]:
        """Not possible."""
        raise self._error()

    def probe(
        self,
        runtime: Runtime,
        precision: Precision,
        layers: Sequence[Layer],
        *,
        threads: int,
        progress: Progress,
    ) -> tuple[float | None, ...]:
        """Not possible."""
        raise self._error()

    def _error(self) -> DeviceError:
        return DeviceError(f"{self.target.name} cannot be measured: there is no driver for it")


def known_models(name: str, own: Path | None = None) -> Calibrations:
    """The target's models, or those in the user's own file.

    Raises:
        InputError: the target has none, or the file is of another target.
    """
    target: Target = registry.find("targets", "TARGET", name)
    if target.calibration is None:
        raise InputError(
            f"target '{name}' is measured, there is no model to predict it from",
            hint=f"edgefit bench MODEL --target {name}",
        )
    known = read(own or target.calibration)
    if known.target != name:
        raise InputError(f"{own} is of the target {known.target}, not of {name}")
    return known


def model_for(run: Run) -> Calibration:
    """The best founded model in float for the request's target, variant and runtime.

    Raises:
        InputError: there is none; or only int8 is allowed, whose cost cannot be judged without the device.
    """
    variant = run.request.target.partition(":")[2]
    floats: tuple[Precision, ...] = ("fp16", "fp32")
    if not set(run.request.precisions) & set(floats):
        raise InputError(
            f"{run.target.name} is planned for in float: its device is not at hand",
            hint="allow fp32 with --precision; edgefit predict estimates int8 files",
        )
    return choose(
        known_models(run.target.name), variant=variant, runtime=run.request.runtime, precisions=floats
    )[0]


def unmeasured_baseline(run: Run) -> Baseline:
    """Metric and cost of the original; no files, for nothing can time them."""
    score = None
    if run.data is not None:
        with run.stage("Metric of the original", "evaluate"):
            score = evaluate(program_runner(run.program), run.data, run.metric)
    return Baseline(score=score, cost=cost(run.program), artifacts={}, measurements={}, drops={})


def foresee(run: Run, model: Calibration) -> Choice:
    """The least damaging network whose predicted latency is under the budget.

    Every plan is predicted again operator by operator, and the planner's coarser sums corrected by that.

    Raises:
        BudgetError: no plan's prediction is under the budget; carries the nearest.
    """
    combination = _combination(run, model)
    whole = predict(model, operators(run.program)).estimate
    if _holds(run, whole.ms):
        plan = replace(unpruned(run, combination, cost(run.program)), estimate=whole)
        reason = "the network holds the budget as it is, by the prediction"
        return _choice(run, run.program, plan, reason)
    tried = _foreseen(run, model, combination)
    for smaller in smaller_runs(run):
        least = min((t.plan.damage for t in tried if t.held), default=math.inf)
        if size_damage(smaller) < least:
            tried += _foreseen(smaller, model, combination)
    return _least_damaging(run, tried)


@dataclass(frozen=True, kw_only=True)
class _Foreseen:
    """A plan with its exact prediction, and whether that is under every limit."""

    run: Run
    plan: PrunePlan
    program: Program
    held: bool


def _foreseen(run: Run, model: Calibration, combination: Combination) -> list[_Foreseen]:
    """Plans at the run's input size, each after the sums were corrected by the last one's prediction."""
    budget, ground = run.request.budget, ground_of(run)
    own = operators(run.program)
    layers, whole_ms = foretold(model, own, ground.shape.layers), predict(model, own).estimate.ms
    sums = PlannedLatency(model=layers, shape=ground.shape)
    contender = Contender(
        combination=combination,
        align=run.runtime(model.runtime).align,
        model=None if budget.ms is None else sums.corrected({}, whole_ms),
        damage=0.0,
    )
    tried: list[_Foreseen] = []
    for _ in range(ROUNDS):
        solution = plan_under(run, contender, ground)
        plan = as_plan(run, contender, solution, ground)
        program = reduce(run.program, run.channels, plan)
        exact = predict(model, operators(program)).estimate
        held = solution.feasible and (budget.ms is None or exact.ms <= budget.ms)
        tried.append(_Foreseen(run=run, plan=replace(plan, estimate=exact), program=program, held=held))
        if budget.ms is None or (held and exact.ms >= SPARE * budget.ms) or contender.model is None:
            break
        contender = replace(contender, model=contender.model.corrected(solution.counts, exact.ms))
    return tried


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
    best = min(holding, key=lambda t: t.plan.damage)
    return _choice(best.run, best.program, best.plan, "least damage under the budget, by the prediction")


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is predicted of the original and of the result, and the line that the report has to end with."""

    original: Prediction
    result: Prediction
    line: str


def outlook(run: Run, model: Calibration, program: Program) -> Outlook:
    """The predictions; their line says from what they are, and that they are no more."""
    before, after = (predict(model, operators(p)) for p in (run.program, program))
    error = model.evidence.left_out_network
    off = "" if error is None else f", {100 * error:.1f} % off on networks left out"
    line = (
        f"{_span(after)} on {run.target.name}:{model.name}, original {_span(before)}, from"
        f" {model.evidence.rows} published latencies{off}: {STATUS}"
    )
    return Outlook(original=before, result=after, line=line)


def _span(found: Prediction) -> str:
    return f"{found.estimate.ms:.4g} ms (90 %: {found.low_ms:.4g}-{found.high_ms:.4g})"


def _holds(run: Run, ms: float) -> bool:
    """Whether the original itself is under every limit; the size of a file is known only once it is made."""
    budget = run.request.budget
    fast = budget.ms is None or ms <= budget.ms
    return fast and budget.mb is None and within(budget, cost(run.program))


def _combination(run: Run, model: Calibration) -> Combination:
    """The runtime and the precision of its file: engines halve floats themselves."""
    precision = FLOAT_OF[run.runtime(model.runtime).format]
    asked = replace(run.request, runtime=model.runtime, precisions=(precision,))
    return combinations(replace(run, request=asked))[0]


def _choice(run: Run, program: Program, plan: PrunePlan, reason: str) -> Choice:
    return Choice(
        run=run,
        plan=plan,
        program=program,
        combination=(plan.runtime, plan.precision),
        reason=f"{reason} ({STATUS})",
        candidates=(),
    )
