"""The closed loop: plan, export, measure; correct the latency model and plan again.

Latency depends on widths, not on weights: the loop runs before any fine-tuning, at most `ROUNDS` times, and
`FURTHER_ROUNDS` more while nothing holds the budget or what holds it leaves a lot of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from toolchain.contest import AIM, Contender, Ground, as_plan, plan_under, reduce
from toolchain.contracts import Sampling
from toolchain.errors import BudgetError
from toolchain.latency.intervals import pooled
from toolchain.prune.plan import Solution
from toolchain.resources import BLOCK
from toolchain.run import Combination, Run, build_for, disturbed, forget, measure
from toolchain.values import Artifact, Measurement, Program, PrunePlan

ROUNDS: Final = 3
FURTHER_ROUNDS: Final = 3
ROOMY: Final = 0.8
"""A best network under this share of the budget leaves a lot of it."""
SPARE: Final = 0.92
"""A measured network under this share of the budget was cut too much: plan again with the corrected model."""
FIRST_AGAIN: Final = 0.5
"""The share of a first miss that is expected to come back; see `_aim`."""
MOST_AGAIN: Final = 0.2
"""The largest miss, as a share, that is expected to come back."""
ROUND: Final = Sampling(trials=6, runs=50, trial_seconds=0.3)
FURTHER: Final = 3
"""How often as many trials are added where a round's interval leaves open whether the limit holds."""


_Tried = tuple[Measurement, PrunePlan, Program]


@dataclass(frozen=True, kw_only=True)
class Round:
    """One turn of the closed loop: what was predicted, what was measured, what followed."""

    number: int
    estimate_ms: float | None
    measured: Measurement | None
    decision: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The plan decided on, the program it gives, and how the decision came about.

    `run` is the run at the input size that the plan is for.
    """

    run: Run
    plan: PrunePlan
    program: Program
    combination: Combination
    reason: str
    candidates: tuple[Mapping[str, object], ...]
    rounds: tuple[Round, ...] = ()
    contender: Contender | None = None
    ground: Ground | None = None


def close_loop(
    run: Run,
    contender: Contender,
    ground: Ground,
    *,
    reason: str,
    candidates: tuple[Mapping[str, object], ...],
) -> Choice:
    """Plan, export, measure; correct the model and plan again while the measurement says so.

    A network gets a second look where it is the corrected model's answer once more, or ends the loop with a
    miss: a busy moment shall not decide what can be reached.

    Raises:
        BudgetError: no measured network held the budget.
    """
    limit = run.request.budget.ms
    choice = partial(Choice, run=run, combination=contender.combination, reason=reason, candidates=candidates)
    rounds: list[Round] = []
    tried: list[_Tried] = []
    for number in range(1, ROUNDS + FURTHER_ROUNDS + 1):
        used = _used(tried, limit)
        if number > ROUNDS and used >= ROOMY:
            break
        solution = plan_under(run, contender, ground)
        plan = as_plan(run, contender, solution, ground)
        program = reduce(run.program, run.channels, plan)
        if contender.model is None or limit is None:
            if not solution.feasible:
                raise _unreachable(run, plan, None)
            return choice(plan=plan, program=program, contender=contender, ground=ground)
        earlier = [entry[0] for entry in tried if _same(plan, entry[1])]
        if earlier and (len(earlier) > 1 or used >= ROOMY):
            break
        measured = earlier[0] if earlier else _round_measurement(run, contender, program, number)
        last = not solution.feasible or number == ROUNDS + FURTHER_ROUNDS
        if earlier or (last and not used and measured.p50_ms > limit):
            measured = _second_look(run, contender, program, measured)
        tried.append((measured, plan, program))
        contender = replace(
            contender,
            model=contender.model.corrected(solution.counts, measured.p50_ms),
            aim=_aim(number, measured.p50_ms / solution.amounts["ms"]),
        )
        decision, done = _decision(measured, limit, solution)
        rounds.append(
            Round(number=number, estimate_ms=solution.amounts["ms"], measured=measured, decision=decision)
        )
        if done:
            break
    _, plan, program = _best(run, tried)
    return choice(plan=plan, program=program, rounds=tuple(rounds), contender=contender, ground=ground)


def _used(tried: Sequence[_Tried], limit: float | None) -> float:
    """The share of the limit that the slowest network under it takes; 0 where none is."""
    if limit is None:
        return 0.0
    return max((entry[0].p50_ms / limit for entry in tried if entry[0].p50_ms <= limit), default=0.0)


def _aim(number: int, missed: float) -> float:
    """The share of the budget to aim at after round `number` took `missed` times what was predicted.

    Of all networks the solver takes those whose time is underestimated most, so that part of a miss comes
    back in the next plan although the model is right where it was corrected: half of a first miss
    (EfficientNet-B0: 10-14 %, then 5-7 %), and all of one that came back already. Where nearly everything
    was missed the model was wrong as a whole, which the correction mends.
    """
    return AIM / (1 + min(max(missed - 1, 0.0), MOST_AGAIN) * (FIRST_AGAIN if number == 1 else 1.0))


def _best(run: Run, tried: Sequence[_Tried]) -> _Tried:
    """The least damaging of the measured networks that hold the limit.

    Raises:
        BudgetError: none does.
    """
    limit = run.request.budget.ms
    assert limit is not None
    held = [entry for entry in tried if entry[0].p50_high_ms <= limit]
    if not held:
        # An interval across the limit decides nothing: the final measurement, with more samples, judges.
        held = [entry for entry in tried if entry[0].p50_ms <= limit]
    if not held:
        nearest = min(tried, key=lambda entry: entry[0].p50_ms)
        forget(run, {entry[0].sha256 for entry in tried})
        raise _unreachable(run, nearest[1], nearest[0])
    return min(held, key=lambda entry: entry[1].damage)


def close_loop_again(choice: Choice, measured_ms: float) -> Choice | None:
    """After a final measurement over the budget: correct the model by it and close the loop anew.

    At the input size of the choice, for which its ground and model are.

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
    again = close_loop(
        choice.run, contender, choice.ground, reason=choice.reason, candidates=choice.candidates
    )
    return replace(again, rounds=(*choice.rounds, *again.rounds))


def _decision(measured: Measurement, limit: float, solution: Solution) -> tuple[str, bool]:
    """What a round's measurement means, and whether planning ends with it."""
    if measured.p50_high_ms > limit:
        over = "over" if measured.p50_ms > limit else "interval across the limit"
        if solution.feasible:
            return f"{over}: plan again", False
        return f"{over}, and nothing smaller is left", True
    if measured.p50_ms < SPARE * limit and solution.counts:
        return "held with room: plan again", False
    return "held", True


def _same(plan: PrunePlan, other: PrunePlan) -> bool:
    return plan.keep == other.keep and plan.dropped == other.dropped


def _round_measurement(run: Run, contender: Contender, program: Program, number: int) -> Measurement:
    with run.stage(f"Files of the candidate (round {number})", "candidates"):
        combination = contender.combination
        artifact = build_for(run, program, [combination], contender.in_float)[combination]
    with run.stage(f"Latency of the candidate (round {number})", "measure"):
        return _until_clear(run, artifact)


def _second_look(run: Run, contender: Contender, program: Program, first: Measurement) -> Measurement:
    """The measurement of a network with several times the trials added."""
    with run.stage("Latency of the candidate, a second look", "measure"):
        artifact = build_for(run, program, [contender.combination], contender.in_float)[contender.combination]
        found = first
        for attempt in range(FURTHER + 1, 2 * FURTHER + 1):
            found = pooled(found, measure(run, [artifact], ROUND, attempt=attempt)[0])
    return found


def _until_clear(run: Run, artifact: Artifact) -> Measurement:
    """The artifact's latency, with further trials while the limit lies inside its interval."""
    limit = run.request.budget.ms
    assert limit is not None
    found = measure(run, [artifact], ROUND)[0]
    for attempt in range(1, FURTHER + 1):
        if not found.p50_low_ms <= limit <= found.p50_high_ms:
            break
        found = pooled(found, measure(run, [artifact], ROUND, attempt=attempt)[0])
    return found


def _unreachable(run: Run, plan: PrunePlan, measured: Measurement | None) -> BudgetError:
    budget = run.request.budget
    if measured is not None:
        message = (
            f"budget {budget.ms:g} ms not reached on {run.target.name}: the best plan measures "
            f"{measured.p50_ms:.4f} ms ({plan.runtime}, {plan.precision})"
        )
    else:
        named = ((getattr(plan.cost, name), name) for name in ("macs", "params", "neurons"))
        needs = ", ".join(f"{amount:,} {name}" for amount, name in named if getattr(budget, name) is not None)
        message = f"budget not reached: the smallest network considered still needs {needs or 'more'}"
    hint = "raise the budget, or allow more: --precision fp32,int8,mixed, --runtime auto"
    doubt = "" if measured is None else disturbed(measured)
    return BudgetError(
        message,
        hint=f"{doubt}; or {hint}" if doubt else hint,
        plan=plan,
        measured=measured,
    )
