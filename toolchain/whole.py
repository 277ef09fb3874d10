"""The original as it is: whether it holds the budget unpruned, by its precision alone."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.baseline import Baseline, acceptable
from toolchain.closing import Choice, Round
from toolchain.contenders import NEGLIGIBLE, Mixture, mixable, mixtures, quantization_damage
from toolchain.contest import unpruned, within
from toolchain.run import Combination, Run
from toolchain.values import Measurement


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """The original in one precision: nothing is cut."""

    combination: Combination
    in_float: tuple[str, ...]
    measured: Measurement
    damage: float


def unpruned_choice(run: Run, baseline: Baseline) -> Choice | None:
    """The original itself, in the least damaging precision that holds every limit; None where none does."""
    if not within(run.request.budget, baseline.cost):
        return None
    holding = _holding(run, baseline)
    if not any(whole.combination[1] == "fp32" for whole in holding):
        for name in mixable(run, baseline):
            # Layers in float make it larger and slower.
            if _within_limits(run, baseline, (name, "int8")):
                for mixture in mixtures(run, baseline, name):
                    holding += _holding(run, mixture.baseline, mixture)
    if not holding:
        return None
    best = min(holding, key=_rank)
    plan = unpruned(run, best.combination, baseline.cost, best.in_float)
    how = "as it is" if best.combination[1] == "fp32" else f"by {_named(best)} alone, nothing pruned"
    rows = tuple(
        {
            "runtime": whole.combination[0],
            "precision": whole.combination[1],
            "in_float": list(whole.in_float),
            "resize": None,
            "estimate_ms": None,
            "damage": whole.damage,
            "kept_ratio": 1.0,
            "chosen": whole is best,
            "note": "holds the budget unpruned (measured)",
        }
        for whole in holding
    )
    return Choice(
        run=run,
        plan=plan,
        program=run.program,
        combination=best.combination,
        reason=f"the network holds the budget {how}",
        candidates=rows,
        rounds=_rounds(best),
    )


def _rank(whole: _Whole) -> tuple[bool, float, float]:
    """Float first, then the least damage; where nothing tells them apart, the fastest."""
    return whole.combination[1] != "fp32", max(whole.damage, NEGLIGIBLE), whole.measured.p50_ms


def _rounds(whole: _Whole) -> tuple[Round, ...]:
    """What was measured of a mixture of precisions; of every other combination the baseline says it."""
    if not whole.in_float:
        return ()
    return (Round(number=1, estimate_ms=None, measured=whole.measured, decision="held unpruned"),)


def _holding(run: Run, baseline: Baseline, mixture: Mixture | None = None) -> list[_Whole]:
    """The combinations of the baseline's files in which the original holds every limit."""
    found = []
    for combination, artifact in baseline.artifacts.items():
        if _within_limits(run, baseline, combination) and acceptable(run, baseline, combination):
            whole = _Whole(
                combination=combination,
                in_float=() if mixture is None else mixture.in_float,
                measured=baseline.measurements[combination],
                damage=quantization_damage(run, combination, artifact),
            )
            found.append(whole)
    return found


def _within_limits(run: Run, baseline: Baseline, combination: Combination) -> bool:
    """Whether the original in this combination is measured under the limits of time and size."""
    budget = run.request.budget
    fast = budget.ms is None or baseline.measurements[combination].p50_high_ms < budget.ms
    return fast and (budget.mb is None or baseline.artifacts[combination].size_bytes <= budget.mb * 1e6)


def _named(whole: _Whole) -> str:
    """`int8`, or `int8 with 4 layers in float`."""
    count = len(whole.in_float)
    return (
        f"int8 with {count} {'layer' if count == 1 else 'layers'} in float" if count else whole.combination[1]
    )
