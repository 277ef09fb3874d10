"""One contender (a runtime and a precision) against the budget: its limits, its solution, its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from toolchain import registry
from toolchain.contracts import Criterion
from toolchain.damage import Damages, axes_of, damage_together, measure_damages
from toolchain.program.blocks import drop
from toolchain.program.capture import fingerprint
from toolchain.program.channels import analyse
from toolchain.program.connecting import connected, loosened
from toolchain.program.rewrite import apply
from toolchain.prune.plan import Limit, Solution, Term, kept_units, solve
from toolchain.prune.proportion import scaled
from toolchain.resources import BLOCK, PlannedLatency, Resource, Shape, shape_of
from toolchain.run import Combination, Run
from toolchain.values import Budget, Channels, Cost, Estimate, Precision, Program, PrunePlan

AIM: Final = 0.97
"""Share of the budget that is planned for: room for the prediction's error and the interval's width."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One runtime and precision with its latency model (None when no latency is asked for).

    `damage` is what the precision alone costs, in nats; `overhead_bytes` what a file holds besides weights
    (of mixed precision: and besides one byte a weight). `in_float` are the layers that are not quantized,
    `aim` is the share of a latency budget that plans aim at.
    """

    combination: Combination
    align: int
    model: PlannedLatency | None
    damage: float
    overhead_bytes: float = 0.0
    in_float: tuple[str, ...] = ()
    aim: float = AIM


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What contenders are planned on: the network's shape and the damage of removing its parts.

    `size_damage` is what the run's smaller input alone costs, in nats. Where `widths` are given, groups stay
    in this proportion, and the damages only tell the units of one group apart.
    """

    shape: Shape
    damages: Damages
    size_damage: float = 0.0
    widths: Mapping[str, int] | None = None


def ground_of(run: Run) -> Ground:
    """The run's ground, found once for all its cases."""

    def found() -> Ground:
        shape = shape_of(run)
        return Ground(shape=shape, damages=measure_damages(run, shape), size_damage=size_damage(run))

    return run.once("ground", found)


def size_damage(run: Run) -> float:
    """Nats that the run's smaller input alone costs; 0 at the network's own size."""
    if run.origin is None:
        return 0.0
    return run.once("damage of the size", partial(damage_together, run, run.program))


def plan_under(run: Run, contender: Contender, ground: Ground) -> Solution:
    """Solve for the contender under the request's budget."""
    with run.stage("Solving for the budget", "plan"):
        bounds, axes = limits(run, contender, ground.shape), axes_of(run, ground.damages, contender.align)
        return solve(axes, bounds) if ground.widths is None else scaled(axes, bounds, ground.widths)


def bytes_per_weight(precision: Precision) -> float:
    """Bytes of a stored weight."""
    return {"fp32": 4.0, "fp16": 2.0}.get(precision, 1.0)


def limits(run: Run, contender: Contender, shape: Shape) -> tuple[Limit, ...]:
    """The request's budget as limits on counts; time and file size with room for the prediction's error."""
    budget = run.request.budget
    found: list[Limit] = []
    if budget.ms is not None and contender.model is not None:
        found.append(Limit(name="ms", limit=budget.ms * contender.aim, terms=contender.model.terms()))
    if budget.mb is not None:
        each = bytes_per_weight(contender.combination[1]) / 1e6
        weights = tuple(t.scaled(each) for t in shape.terms("params"))
        rest = Term(axes=(), values=lambda _: contender.overhead_bytes / 1e6)
        found.append(Limit(name="mb", limit=budget.mb * AIM, terms=(*weights, rest)))
    counted: tuple[tuple[Resource, int | None], ...] = (
        ("macs", budget.macs),
        ("params", budget.params),
        ("neurons", budget.neurons),
    )
    for name, limit in counted:
        if limit is not None:
            found.append(Limit(name=name, limit=limit, terms=shape.terms(name)))
    return tuple(found)


def as_plan(run: Run, contender: Contender, solution: Solution, ground: Ground) -> PrunePlan:
    """The solution as a plan that can be saved and replayed."""
    dropped = tuple(b.name for b in ground.shape.blocks if solution.counts.get(BLOCK + b.name, 1) == 0)
    ms, estimate = solution.amounts.get("ms"), None
    if ms is not None:
        source = f"layer timings of {' '.join(contender.combination)} on {run.target.name}"
        estimate = Estimate(ms=ms, source=source)
    return PrunePlan(
        program=fingerprint(run.given),
        criterion=ground.damages.criterion,
        keep=kept_units(ground.damages.scores, solution.counts),
        dropped=dropped,
        runtime=contender.combination[0],
        precision=contender.combination[1],
        estimate=estimate,
        cost=ground.shape.cost(solution.counts),
        damage=solution.damage + ground.size_damage,
        gap=solution.gap,
        seed=run.request.seed,
        resize=run.resize,
        inputs=run.view,
        in_float=contender.in_float,
        connectivity="mixed" if run.program.loose else "tied",
    )


def within(budget: Budget, found: Cost) -> bool:
    """Whether a network's counted resources are under their limits."""
    pairs = (
        (budget.macs, found.macs),
        (budget.params, found.params),
        (budget.neurons, found.neurons),
    )
    return all(limit is None or amount <= limit for limit, amount in pairs)


def unpruned(run: Run, combination: Combination, cost: Cost, in_float: tuple[str, ...] = ()) -> PrunePlan:
    """The plan that changes nothing but the precision."""
    return PrunePlan(
        program=fingerprint(run.program),
        criterion="none",
        keep={},
        runtime=combination[0],
        precision=combination[1],
        cost=cost,
        seed=run.request.seed,
        in_float=in_float,
    )


def untied(run: Run) -> Run:
    """The run whose additions are all loose that can be; what was found of the other has no part in it."""
    program = loosened(run.program)
    return replace(run, program=program, channels=analyse(program), kept={})


def reduce(program: Program, channels: Channels, plan: PrunePlan) -> Program:
    """The program that a plan describes: channels cut and blocks dropped.

    `program` is loose, and `channels` are its, where the plan's connectivity is mixed. Where the plan's
    criterion lets kept units do what the others did, they do.
    """
    if plan.connectivity == "mixed":
        return connected(program, plan.keep, plan.dropped)
    cut = apply(_carried(program, channels, plan), channels, plan.keep) if plan.keep else program
    return drop(cut, plan.dropped)


def _carried(program: Program, channels: Channels, plan: PrunePlan) -> Program:
    if plan.criterion not in registry.names("toolchain.prune.criteria"):
        return program  # what a learner decided
    criterion: Criterion = registry.find("toolchain.prune.criteria", "CRITERION", plan.criterion)
    return program if criterion.carry is None else criterion.carry(program, channels, plan.keep)
