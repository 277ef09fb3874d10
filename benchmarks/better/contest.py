"""One network in the comparison: Edgefit's plans, torch-pruning's cuts of equal latency, both fine-tuned.

Latency depends on widths, not on weights, so everything is measured before anything is fine-tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from benchmarks.better import rivals
from benchmarks.better.networks import NETWORKS
from benchmarks.better.report import EQUAL, FASTER
from toolchain.baseline import Baseline
from toolchain.closing import Choice
from toolchain.contest import ground_of
from toolchain.contracts import Sampling, Silent
from toolchain.damage import SCORED, axes_of
from toolchain.pipeline import baseline_of, open_run
from toolchain.planning import decide, replay
from toolchain.program.capture import capture
from toolchain.prune.planfile import plan_text, read_plan
from toolchain.repair import repaired
from toolchain.resources import PlannedLatency
from toolchain.run import Run, build_for, measure
from toolchain.timing import planned_latency
from toolchain.train.loop import fine_tune
from toolchain.values import Budget, Program, Request, Training

HOW: Final = ("onnxruntime", "fp32")
SAMPLING: Final = Sampling(trials=8, runs=60, trial_seconds=0.2)
MEASURED: Final = 8
"""Most cuts of one variant that are looked at until one is as slow as Edgefit's network."""
FAILURES: Final = (RuntimeError, ValueError, IndexError)
"""What torch-pruning raises where it cannot cut a network, or its network does not run."""
DEEP: Final = range(50, 98)
"""Percentages among which the fastest cut of a variant is looked for."""
DEEPEST: Final = 4
"""Cuts predicted to be the fastest of all that are measured where bisection has found none fast enough."""
AIMED: Final = 1.015
"""How slow a cut is hoped to be, relative to Edgefit's network."""
SLOWER: Final = 1.03
"""A cut that takes from `FASTER` to this of Edgefit's time is as slow: in doubt for torch-pruning."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A network with its measured baseline on this machine, ready to be cut by both."""

    name: str
    run: Run
    model: nn.Module
    out: Path

    @staticmethod
    def of(name: str, models: Path, data: Path, out: Path) -> Contest:
        """Opens the network that `benchmarks.better.train` has left in `models`."""
        request = Request(
            model=models / f"{name}.pt2",
            target="host",
            out=out / f"{name}-stages",
            budget=Budget(ms=1.0),
            data=str(data),
            precisions=("fp32",),
            runtime="onnxruntime",
            formats=("onnx",),
        )
        model = NETWORKS[name]()
        model.load_state_dict(torch.load(models / f"{name}.pt", weights_only=True))
        return Contest(name=name, run=open_run(request, Silent()), model=model.eval(), out=out)

    @cached_property
    def baseline(self) -> Baseline:
        """The unpruned network, measured."""
        return baseline_of(self.run)

    @cached_property
    def batch(self) -> rivals.Batch:
        """The training samples that importances and the planner's criterion look at."""
        assert self.run.data is not None
        inputs, target = self.run.data.calibration(SCORED)
        return inputs[0], target

    @cached_property
    def latency(self) -> PlannedLatency:
        """Predicts where to look for equal latency; measurements decide."""
        ground = ground_of(self.run)
        ladders = {a.name: a.levels for a in axes_of(self.run, ground.damages, 1)}
        return planned_latency(self.run, ground.shape, HOW, self.baseline, ladders)

    def plan(self, speedup: float) -> dict[str, Any]:
        """Edgefit's plan for a budget of the measured latency over `speedup`; kept as a file."""
        whole = self.baseline.measurements[HOW].p50_ms
        request = replace(self.run.request, budget=Budget(ms=whole / speedup))
        choice: Choice = decide(replace(self.run, request=request), self.baseline)
        self._plan_file(speedup).write_text(plan_text(choice.plan), encoding="utf-8")
        measured = choice.rounds[-1].measured if choice.rounds else None
        return {
            "whole_ms": whole,
            "budget_ms": whole / speedup,
            "p50_ms": None if measured is None else measured.p50_ms,
            "rounds": [[r.estimate_ms, r.measured.p50_ms if r.measured else None] for r in choice.rounds],
            "params": choice.plan.cost.params,
            "macs": choice.plan.cost.macs,
            "damage": choice.plan.damage,
            "dropped": list(choice.plan.dropped),
            "widths": {name: len(units) for name, units in choice.plan.keep.items()},
        }

    def ours(self, speedup: float) -> Program:
        """The network of the plan as `compress` begins to fine-tune it: fitted to the original."""
        return repaired(self.run, replay(self.run, self._plan_file(speedup))).program

    def _plan_file(self, speedup: float) -> Path:
        return self.out / f"{self.name}-{speedup:g}x.json"

    def theirs(self, variant: str, percent: int) -> Program:
        """torch-pruning's network with `percent` of the channels removed, not fine-tuned."""
        return capture(self._cut(variant, percent), (self.batch[0][:2],), name=self.name)

    def _cut(self, variant: str, percent: int) -> nn.Module:
        inner = self.name == "resnet20"
        return rivals.cut(self.model, variant, percent / 100, self.batch, inner=inner)

    def failure(self) -> str:
        """What torch-pruning says when it may cut everything; empty where it cuts."""
        try:
            rivals.cut(self.model, rivals.VARIANTS[0], 0.5, self.batch)
        except FAILURES as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def counts(self, module: nn.Module) -> dict[str, int]:
        """The widths of a cut module, by Edgefit's channel groups."""
        now = dict(module.named_parameters())
        before = dict(self.model.named_parameters())
        found = {}
        for group in self.run.channels.groups:
            member = next(m for m in group.members if m.parameter in now)
            size = before[member.parameter].shape[member.dim]
            found[group.name] = now[member.parameter].shape[member.dim] * group.size // size
        return found

    def match(self, speedup: float, variant: str, known: dict[str, float]) -> dict[str, Any]:
        """The cut of a variant that is as slow as Edgefit's network, measured in turns.

        `known` keeps the ratios of measured latencies by the widths: variants with local ratios share them.
        """
        ours = build_for(self.run, self.ours(speedup), [HOW])[HOW]
        goal = self.latency.ms_of_counts(self._widths_of_plan(speedup))

        @cache
        def predicted(percent: int) -> float:
            return self.latency.ms_of_counts(self.counts(self._cut(variant, percent))) / goal

        def measured(percent: int) -> float:
            module = self._cut(variant, percent)
            key = repr(sorted(self.counts(module).items()))
            if key not in known:
                program = capture(module, (self.batch[0][:2],), name=self.name)
                theirs = build_for(self.run, program, [HOW])[HOW]
                pair = measure(self.run, [ours, theirs], SAMPLING)
                known[key] = pair[1].p50_ms / pair[0].p50_ms
            return known[key]

        percent, ratio = deepest(predicted, measured)
        return {"percent": percent, "ratio": ratio, "widths": self.counts(self._cut(variant, percent))}

    def _widths_of_plan(self, speedup: float) -> Mapping[str, int]:
        plan = read_plan(self._plan_file(speedup))
        kept = {name: len(units) for name, units in plan.keep.items()}
        return {**kept, **{f"block {name}": 0 for name in plan.dropped}}


def deepest(predicted: Callable[[int], float], measured: Callable[[int], float]) -> tuple[int, float | None]:
    """The percentage found whose latency is closest to the goal's (1), and its latency.

    Bisection, that looks first where the prediction, corrected by every measurement, puts the goal. It goes
    as far as the fastest cut predicted: torch-pruning leaves a layer whole that it would have to take away,
    so that very deep cuts are slow again. Where that is still slower than `EQUAL`, the next fastest predicted
    are measured too. A cut that fails counts as too fast. Channels go one by one: a cut a little slower than
    the goal is taken before one that is faster. (0, None): nothing could be measured.
    """
    deep = _fastest_first(predicted)
    slow, fast, error = 0, deep[0] + 1, 1.0
    found: dict[int, float] = {}
    while fast - slow > 1 and len(found) < MEASURED:
        percent = _last(lambda p, error=error: predicted(p) * error >= AIMED, slow + 1, fast - 1)
        try:
            found[percent] = ratio = measured(percent)
            error = ratio / predicted(percent)
        except FAILURES:
            ratio = 0.0
        if FASTER <= ratio <= SLOWER:
            break
        slow, fast = (slow, percent) if ratio < FASTER else (percent, fast)
    if found and min(found.values()) > EQUAL:
        for percent in deep[:DEEPEST]:
            with suppress(*FAILURES):
                found[percent] = measured(percent)
    if not found:
        return 0, None
    return min(found.items(), key=lambda f: (not FASTER <= f[1] <= EQUAL, abs(f[1] - 1.0)))


def _fastest_first(predicted: Callable[[int], float]) -> list[int]:
    """Percentages of deep cuts by predicted latency, the fastest first; the deepest where none can be cut."""
    known: dict[int, float] = {}
    for percent in DEEP:
        try:
            known[percent] = predicted(percent)
        except FAILURES:
            continue
    return sorted(known, key=lambda p: (known[p], -p)) or [DEEP[-1]]


def _last(slow_enough: Callable[[int], bool], low: int, high: int) -> int:
    """The last of `low` to `high` that is slow enough, or `low`; those that are not follow those that are."""
    while low < high:
        middle = (low + high + 1) // 2
        try:
            enough = slow_enough(middle)
        except FAILURES:
            # torch-pruning takes whole layers away when asked for much; the search goes on below that.
            enough = False
        low, high = (middle, high) if enough else (low, middle - 1)
    return low


def tuned(
    contest: Contest, program: Program, data: Any, training: Training, folder: Path
) -> dict[str, float]:
    """Top-1 before and after fine-tuning with the original as teacher; nothing in it knows who cut."""
    made = fine_tune(
        program,
        teacher=contest.run.program,
        data=data,
        metric=contest.run.metric,
        training=training,
        folder=folder,
        progress=Silent(),
    )
    return {"top1": made.history[-1].metric, "loss": made.history[-1].loss}
