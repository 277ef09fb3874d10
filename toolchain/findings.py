"""What a run found, as the report's record (schema `edgefit.report/1`, documented in docs/report.md)."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from toolchain import __version__
from toolchain.baseline import Baseline
from toolchain.closing import Choice
from toolchain.input_view import described
from toolchain.outlook import Outlook
from toolchain.plain import to_plain
from toolchain.program.capture import fingerprint
from toolchain.program.cost import cost, layers
from toolchain.program.resize import image_size
from toolchain.proof import Proof, kind_of
from toolchain.run import Run
from toolchain.train.loop import FineTuned
from toolchain.train.metric import Score
from toolchain.values import Artifact, Check

SCHEMA: Final = "edgefit.report/1"


def record(
    run: Run,
    kind: str,
    baseline: Baseline | None,
    choice: Choice | None,
    tuned: FineTuned | None,
    proof: Proof | None,
    foreseen: Outlook | None = None,
    storage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole record; what did not happen is None."""
    checks = () if proof is None else proof.checks
    verdict = "not measured" if proof is None else proof.verdict
    return {
        "schema": SCHEMA,
        "tool": {"name": "edgefit", "version": __version__},
        "created": _now(),
        "kind": kind,
        "request": to_plain(run.request),
        "model": {
            "name": run.program.name,
            "fingerprint": fingerprint(run.program),
            "inputs": to_plain(run.program.inputs),
            "outputs": to_plain(run.program.outputs),
        },
        "data": _data(run if choice is None else choice.run),
        "target": {"name": run.target.name, "summary": run.target.summary},
        "baseline": None if baseline is None else _baseline(baseline),
        "plan": None if choice is None else _plan(choice),
        "rounds": [] if choice is None else [_round(r) for r in choice.rounds],
        "predicted": None if foreseen is None else _predicted(foreseen),
        "training": None if tuned is None else _training(tuned),
        "storage": None if storage is None else dict(storage),
        "result": None if proof is None else _result(run, proof),
        "checks": [to_plain(c) for c in checks],
        "budget": [] if proof is None else [asdict(entry) for entry in proof.limits],
        "verdict": verdict,
        "notes": list(run.notes),
        "timings": dict(run.seconds),
        "exit_code": exit_code(checks, _judged(run, kind, verdict)),
    }


def _judged(run: Run, kind: str, verdict: str) -> str:
    """The verdict that the exit code follows: without the device a prediction will do, unless it may not."""
    if run.target.calibration is not None:
        if run.request.require_measured:
            return "not measured"
        return "held" if verdict == "not measured" else verdict
    return verdict if kind == "compress" else "held"


def exit_code(checks: Sequence[Check], verdict: str) -> int:
    """0 when no check failed and every limit is held, else 1."""
    return int(verdict != "held" or any(check.status == "fail" for check in checks))


def score_record(score: Score | None) -> dict[str, Any] | None:
    """Name, value and number of samples of a score."""
    return None if score is None else {"name": score.name, "value": score.value, "samples": score.samples}


def _now() -> str:
    """UTC time in ISO form; SOURCE_DATE_EPOCH when set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.datetime.now(datetime.UTC)
    if epoch and epoch.isdigit():
        moment = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    return moment.isoformat(timespec="seconds")


def _data(run: Run) -> dict[str, Any] | None:
    data = run.data
    if data is None:
        return None
    return {
        "name": data.name,
        "classes": list(data.classes),
        "train": data.train_size,
        "validation": data.validation_size,
        "skipped": list(data.skipped),
        "preprocessing": to_plain(data.preprocessing),
    }


def _artifact(artifact: Artifact, score: Score | None = None) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(artifact)
    return {**plain, "path": Path(artifact.path).name, "metric": score_record(score)}


def _baseline(baseline: Baseline) -> dict[str, Any]:
    return {
        "metric": score_record(baseline.score),
        "cost": to_plain(baseline.cost),
        "artifacts": [_artifact(a) for a in baseline.artifacts.values()],
        "measurements": [to_plain(m) for m in baseline.measurements.values()],
        "drops": {f"{name} {precision}": drop for (name, precision), drop in baseline.drops.items()},
    }


def _plan(choice: Choice) -> dict[str, Any]:
    plan, run = choice.plan, choice.run
    after = {layer.node: layer.out_channels for layer in layers(choice.program)}
    widths = [
        {
            "layer": layer.weight.removesuffix(".weight"),
            "before": layer.out_channels,
            "after": after[layer.node],
        }
        for layer in layers(run.program)
        if layer.node in after
    ]
    return {
        "criterion": plan.criterion,
        "runtime": plan.runtime,
        "precision": plan.precision,
        "estimate_ms": None if plan.estimate is None else plan.estimate.ms,
        "estimate_source": None if plan.estimate is None else plan.estimate.source,
        "damage": plan.damage,
        "gap": plan.gap,
        "dropped": list(plan.dropped),
        "in_float": [name.removesuffix(".weight") for name in plan.in_float],
        "connectivity": plan.connectivity,
        "resize": None if plan.resize is None else [list(image_size(run.given)), list(plan.resize)],
        "inputs": None if plan.inputs is None else {**to_plain(plan.inputs), "text": described(plan.inputs)},
        "reason": choice.reason,
        "cost": to_plain(cost(choice.program)),
        "widths": widths,
        "candidates": [dict(row) for row in choice.candidates],
    }


def _predicted(foreseen: Outlook) -> dict[str, Any]:
    """Estimates of original and result with their 90 % intervals; nothing of this was measured."""
    pairs = (("original", foreseen.original), ("result", foreseen.result))
    return {
        which: {"ms": p.estimate.ms, "low_ms": p.low_ms, "high_ms": p.high_ms, "source": p.estimate.source}
        for which, p in pairs
    }


def _round(entry: Any) -> Mapping[str, Any]:
    measured = entry.measured
    return {
        "round": entry.number,
        "estimate_ms": entry.estimate_ms,
        "measured_ms": None if measured is None else measured.p50_ms,
        "low_ms": None if measured is None else measured.p50_low_ms,
        "high_ms": None if measured is None else measured.p50_high_ms,
        "decision": entry.decision,
    }


def _training(tuned: FineTuned) -> dict[str, Any]:
    epochs = [
        {
            "epoch": e.number,
            "loss": e.loss,
            "metric": e.metric,
            "lr": e.lr,
            "seconds": e.seconds,
            "left": e.left,
        }
        for e in tuned.history
    ]
    return {"epochs": epochs, "best_epoch": tuned.best_epoch}


def _result(run: Run, proof: Proof) -> dict[str, Any]:
    chosen = kind_of(run, proof.combination)
    measurements = list(proof.measurements.values())
    return {
        "metric": score_record(proof.score),
        "cost": to_plain(proof.cost),
        "artifacts": [
            {**_artifact(a, proof.scores.get(k)), "chosen": k == chosen} for k, a in proof.artifacts.items()
        ],
        "measurements": [to_plain(m) for m in ([proof.baseline] if proof.baseline else []) + measurements],
    }
