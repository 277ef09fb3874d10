"""Who competes: every runtime and precision that the request allows, mixtures of precisions among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from toolchain.assembly import open_session, runner
from toolchain.baseline import BASELINE, Baseline, acceptable, quantization_drop, slower_than_float
from toolchain.contest import Contender, Ground, bytes_per_weight
from toolchain.damage import axes_of, divergence_of, judged
from toolchain.errors import ConversionError
from toolchain.resources import PlannedLatency
from toolchain.run import Combination, Run, build_for, measure
from toolchain.sensitivity import sensitivities
from toolchain.timing import planned_latency
from toolchain.values import Artifact

COUNTS: Final = (1, 2, 4, 8)
"""How many of the layers that int8 hurts most stay in float."""
MARGINAL: Final = 0.05
"""Share of all layers' damage that further layers have to carry to be worth another mixture."""
NEGLIGIBLE: Final = 0.002
"""Nats: an int8 file that costs less leaves nothing to win."""


def contenders(run: Run, baseline: Baseline, ground: Ground) -> Iterator[Contender]:
    """Every acceptable runtime and precision of the baseline, with its latency model.

    The runtime that is fastest on the original need not be fastest on what is left of it.
    """
    for combination in baseline.measurements:
        if acceptable(run, baseline, combination):
            yield _contender(run, baseline, ground, combination, ())


def mixed_contenders(run: Run, baseline: Baseline, ground: Ground, runtime: str) -> Iterator[Contender]:
    """Int8 with the layers that it hurts most in float: what is acceptable of it."""
    for mixture in mixtures(run, baseline, runtime):
        if acceptable(run, mixture.baseline, mixture.combination):
            yield _contender(run, mixture.baseline, ground, mixture.combination, mixture.in_float)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A combination of mixed precision; `baseline` holds the original's file, time and drop in it."""

    combination: Combination
    in_float: tuple[str, ...]
    baseline: Baseline

    @property
    def artifact(self) -> Artifact:
        """The original in this mixture."""
        return self.baseline.artifacts[self.combination]


def mixtures(run: Run, baseline: Baseline, runtime: str) -> tuple[Mixture, ...]:
    """The original with its 1, 2, 4, 8 most sensitive layers in float: built, scored, measured in turns."""
    return run.once(("mixtures", runtime), partial(_mixtures, run, baseline, runtime))


def _mixtures(run: Run, baseline: Baseline, runtime: str) -> tuple[Mixture, ...]:
    combination: Combination = (runtime, "mixed")
    steps, artifacts = ladder(run), []
    with run.stage(f"Files of the original in mixed precision ({runtime})", "candidates"):
        for done, kept in enumerate(steps, 1):
            try:
                artifacts.append(build_for(run, run.program, [combination], kept)[combination])
            except ConversionError as error:
                run.notes.append(f"mixed precision is not offered in {runtime}: {error}")
                return ()
            run.progress.step(done, len(steps), f"{len(kept)} layers in float")
    with run.stage(f"Latency of the original in mixed precision ({runtime})", "measure"):
        times = measure(run, artifacts, BASELINE) if artifacts else ()
    found = []
    with run.stage(f"Metric of the original in mixed precision ({runtime})", "evaluate"):
        for kept, artifact, time in zip(steps, artifacts, times, strict=True):
            own = replace(
                baseline,
                artifacts={combination: artifact},
                measurements={**baseline.measurements, combination: time},
                drops={combination: quantization_drop(run, artifact)},
            )
            found.append(Mixture(combination=combination, in_float=kept, baseline=own))
    return tuple(found)


def ladder(run: Run) -> list[tuple[str, ...]]:
    """Sets of layers to keep in float, each a beginning of the order by sensitivity; never all of them."""
    nats = sensitivities(run)
    order, total = list(nats), sum(nats.values())
    found: list[tuple[str, ...]] = []
    for count in COUNTS:
        more = order[len(found[-1]) if found else 0 : count]
        if count >= len(order) or sum(nats[name] for name in more) < MARGINAL * total:
            break
        found.append(tuple(order[:count]))
    return found


def mixable(run: Run, baseline: Baseline) -> list[str]:
    """Runtimes in which mixed precision is allowed, and int8 is faster than float but not free of damage."""
    if "mixed" not in run.request.precisions or run.data is None:
        return []
    found = []
    for name, precision in baseline.measurements:
        int8 = (name, precision)
        possible = precision == "int8" and run.runtime(name).mixed and not slower_than_float(baseline, int8)
        if possible and quantization_damage(run, int8, baseline.artifacts[int8]) > NEGLIGIBLE:
            found.append(name)
    return found


def _contender(
    run: Run, baseline: Baseline, ground: Ground, combination: Combination, in_float: tuple[str, ...]
) -> Contender:
    artifact = baseline.artifacts[combination]
    weights = baseline.cost.params * bytes_per_weight(combination[1])
    return Contender(
        combination=combination,
        align=run.runtime(combination[0]).align,
        model=_latency(run, baseline, ground, combination, in_float),
        damage=quantization_damage(run, combination, artifact),
        overhead_bytes=max(artifact.size_bytes - weights, 0.0),
        in_float=in_float,
    )


def _latency(
    run: Run, baseline: Baseline, ground: Ground, combination: Combination, in_float: tuple[str, ...]
) -> PlannedLatency | None:
    """What the contender takes at other widths; None without a budget of time."""
    if run.request.budget.ms is None:
        return None
    align = run.runtime(combination[0]).align
    ladders = {axis.name: axis.levels for axis in axes_of(run, ground.damages, align)}
    count = f", {len(in_float)} layers in float" if in_float else ""
    with run.stage(f"Layer timings on the target ({' '.join(combination)}{count})", "measure"):
        return run.once(
            ("latency", combination, in_float),
            partial(planned_latency, run, ground.shape, combination, baseline, ladders, in_float),
        )


def quantization_damage(run: Run, combination: Combination, artifact: Artifact) -> float:
    """Nats by which a quantized file of the original diverges from it; 0 in float and without data."""

    def found() -> float:
        session = open_session(artifact)
        if run.data is None or combination[1] == "fp32" or session is None:
            return 0.0
        return divergence_of(runner(session), run.program, judged(run.data))

    return run.once(("damage", artifact.sha256), found)
