"""Several cases in one run: every target with every budget, each with its complete result.

What no budget changes is done once: network, data, baseline, layer timings, damages. The cases then run in
turn, each independent of the others' results. A case that fails is an entry of the record; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from toolchain import findings
from toolchain.baseline import Baseline, combinations
from toolchain.contracts import Progress, Silent
from toolchain.deliver import clear_others, replace_folder
from toolchain.errors import BudgetError, CompressError, Interrupted
from toolchain.outlook import models_of, outlook, with_calibration
from toolchain.pipeline import baseline_of, compress_run, on_target, open_run, plan_run
from toolchain.plain import to_plain
from toolchain.prune.planfile import plan_text
from toolchain.report import front_record
from toolchain.report.folder import FRONT_FILES, write_front
from toolchain.run import Run
from toolchain.values import Budget, PrunePlan, Report, Request

Job = Callable[[Run, Baseline], Report]
JOBS: Final[Mapping[str, Job]] = {"compress": compress_run, "plan": plan_run}
BEST_PLAN: Final = "best-plan.json"


class _Named:
    """The progress of one case: its name before every stage."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name

    def stage(self, title: str) -> None:
        """The case's stage begins."""
        self._progress.stage(f"{self._name}: {title}")

    def step(self, done: int, total: int, note: str = "") -> None:
        """As the whole run's."""
        self._progress.step(done, total, note)


def front(requests: Sequence[Request], kind: str, progress: Progress | None = None) -> Report:
    """Run all cases; their folders and the front's own files go to the folder that they share.

    Args:
        requests: one a case, alike but for the target, the budget and the last part of `out`.
        kind: "compress" or "plan".
        progress: told of every stage.

    Raises:
        CompressError: before the first case began, or Ctrl-C: finished cases stand.
    """
    start, out = time.monotonic(), requests[0].out.parent
    requests = with_calibration(requests)
    runs = _opened(requests, out, progress or Silent())
    baselines: dict[str, Baseline] = {}
    cases = {r.out.name: front_record.waiting(r.out.name, r.target, _limits(r.budget)) for r in requests}

    def written() -> dict[str, Any]:
        record = _record(kind, runs, baselines, list(cases.values()), time.monotonic() - start)
        write_front(record, out)
        return record

    record = written()
    for request in requests:
        name, run, begun = request.out.name, runs[request.target], time.monotonic()
        try:
            if request.target not in baselines:
                baselines[request.target] = baseline_of(run)
            begun = time.monotonic()
            report = JOBS[kind](_of_case(run, request), baselines[request.target])
            cases[name] = front_record.done(cases[name], report.record)
        except Interrupted:
            raise
        except CompressError as error:
            cases[name] = _missed(cases[name], error, request)
        cases[name]["seconds"] = time.monotonic() - begun
        record = written()
        clear_others(out, [*FRONT_FILES, *(n for n, case in cases.items() if _has_folder(case))])
    return Report(record=record, exit_code=record["exit_code"])


def _opened(requests: Sequence[Request], out: Path, progress: Progress) -> dict[str, Run]:
    """A run for each target, all on the same network and data; what cannot be planned for is refused here."""
    first = open_run(replace(requests[0], out=out), progress)
    runs = {first.request.target: first}
    for request in requests:
        if request.target not in runs:
            runs[request.target] = on_target(first, replace(request, out=out))
    for run in runs.values():
        if run.target.calibration is not None:
            models_of(run)
        else:
            combinations(run)
    return runs


def _of_case(run: Run, request: Request) -> Run:
    """The target's run for one case, with a log of its own that begins with what concerns all."""
    progress = _Named(run.progress, request.out.name)
    return replace(run, request=request, progress=progress, seconds={}, notes=list(run.notes))


def _missed(entry: front_record.Entry, error: CompressError, request: Request) -> front_record.Entry:
    """A case that came to no result; the best plan of an unreachable budget is kept in its folder."""
    found = entry | {
        "status": front_record.FAILED,
        "exit_code": error.exit_code,
        "error": {"message": error.message, "hint": error.hint},
    }
    if not isinstance(error, BudgetError):
        return found
    plan, found["status"] = error.plan, front_record.NOT_REACHED
    if plan is None:
        return found
    replace_folder(request.out, partial(_write_best, plan))
    estimate = None if plan.estimate is None else {"ms": plan.estimate.ms, "low_ms": None, "high_ms": None}
    latency = None
    if error.measured is not None:
        measured = to_plain(error.measured)
        latency = {name: measured[name] for name in ("p50_ms", "p50_low_ms", "p50_high_ms")}
    return found | {
        "runtime": plan.runtime,
        "precision": plan.precision,
        "latency": latency,
        "predicted": estimate if latency is None else None,
        "cost": to_plain(plan.cost),
        "dropped": list(plan.dropped),
        "plan": f"{request.out.name}/{BEST_PLAN}",
    }


def _has_folder(case: front_record.Entry) -> bool:
    """Whether the case's folder is of this run, or may be of an earlier one that this run goes on from."""
    return case["plan"] is not None or case["status"] == front_record.WAITING


def _write_best(plan: PrunePlan, folder: Path) -> None:
    (folder / BEST_PLAN).write_text(plan_text(plan), encoding="utf-8")


def _limits(budget: Budget) -> dict[str, float]:
    """The limits that were asked for."""
    return {name: limit for name, limit in to_plain(budget).items() if limit is not None}


def _record(
    kind: str,
    runs: Mapping[str, Run],
    baselines: Mapping[str, Baseline],
    cases: Sequence[front_record.Entry],
    seconds: float,
) -> dict[str, Any]:
    """The front's record: what all cases share, the original on every target, the cases in their order."""
    of_run = findings.record(next(iter(runs.values())), kind, None, None, None, None)
    shared = {name: of_run[name] for name in ("tool", "created", "kind", "model", "data")}
    asked = {name: value for name, value in of_run["request"].items() if name not in ("target", "budget")}
    common: dict[str, float] = {}
    for run in runs.values():
        for stage, taken in run.seconds.items():
            common[stage] = common.get(stage, 0.0) + taken
    return {
        "schema": front_record.SCHEMA,
        **shared,
        "request": asked,
        "originals": [_original(runs[target], found) for target, found in baselines.items()],
        "cases": list(cases),
        "timings": common,
        "seconds": seconds,
        "exit_code": front_record.exit_code(cases),
    }


def _original(run: Run, baseline: Baseline) -> front_record.Entry:
    """The network as handed in, on one target."""
    foreseen = outlook(run, run.program) if run.target.calibration is not None else None
    return front_record.original(findings.record(run, "bench", baseline, None, None, None, foreseen))
