"""What is known of a device that is not at hand: its latency models, and what they predict.

`foresight.py` decides by them; nothing here is ever called measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from toolchain import registry
from toolchain.assembly import FLOAT_OF, format_named, missing_packages, quantizers
from toolchain.baseline import Baseline
from toolchain.contracts import Progress, Runtime, Sampling, Target
from toolchain.errors import DeviceError, InputError
from toolchain.latency.calibrated import Calibration, Calibrations, Prediction, choose, predict, read
from toolchain.latency.operators import operators
from toolchain.program.cost import cost
from toolchain.run import Combination, Run
from toolchain.train.metric import evaluate, program_runner
from toolchain.values import Artifact, Conditions, Layer, Measurement, Precision, Program, Request

STATUS: Final = "predicted, not verified on the device"
_FLOATS: Final[tuple[Precision, ...]] = ("fp16", "fp32")


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


def with_calibration(requests: Sequence[Request]) -> tuple[Request, ...]:
    """The requests, the user's own latency model with those of its target only.

    Raises:
        InputError: it cannot be read, or is of none of the targets.
    """
    path = requests[0].calibration
    if path is None:
        return tuple(requests)
    target = read(path).target
    fitting = [request.target.partition(":")[0] == target for request in requests]
    if not any(fitting):
        raise InputError(
            f"{path} is of the target {target}, which is not asked for", hint=f"--target {target}"
        )
    return tuple(
        replace(request, calibration=path if fits else None)
        for request, fits in zip(requests, fitting, strict=True)
    )


def models_of(run: Run) -> tuple[Calibration, ...]:
    """The best founded models for the request's target, variant and runtime: one in float, one in int8.

    In int8 only where its file can be made and judged here. With the user's own calibration only what that
    holds.

    Raises:
        InputError: there is none that the request allows.
    """
    known, asked = _fitting(run), set(run.request.precisions)
    found = [m for m in known if m.precision in _FLOATS][:1] if asked & set(_FLOATS) else []
    if asked & {"int8", "mixed"} and run.material.samples is not None:
        found += [m for m in known if m.precision == "int8" and _quantized_here(run, m)][:1]
    if not found:
        there = ", ".join(sorted({m.precision for m in known}))
        raise InputError(
            f"{run.target.name} cannot be planned for in {', '.join(sorted(asked))} from here: its latency "
            f"models are in {there}",
            hint="int8 needs --data and a runtime whose int8 files are made here (litert); or allow fp32; "
            "edgefit predict estimates int8 files",
        )
    return tuple(found)


def model_for(run: Run, combination: Combination) -> Calibration:
    """The model that a plan's runtime and precision are predicted by.

    Raises:
        InputError: there is none.
    """
    runtime, precision = combination
    wanted = ("int8",) if precision == "int8" else _FLOATS
    for model in _fitting(run):
        if model.runtime == runtime and model.precision in wanted:
            return model
    raise InputError(f"no latency model of {run.request.target} is for {runtime} {precision}")


def combination_of(run: Run, model: Calibration) -> Combination:
    """The runtime and the precision of its file: engines halve floats themselves."""
    plain = FLOAT_OF[run.runtime(model.runtime).format]
    return model.runtime, "int8" if model.precision == "int8" else plain


def _fitting(run: Run) -> tuple[Calibration, ...]:
    """Every model of the request's variant and runtime, the best founded one first."""
    variant = run.request.target.partition(":")[2]
    known = known_models(run.target.name, run.request.calibration)
    return choose(known, variant=variant, runtime=run.request.runtime)


def _quantized_here(run: Run, model: Calibration) -> bool:
    """Whether the file that the model's runtime would execute can be made and run on this machine."""
    name = run.runtime(model.runtime).format
    quantizer = quantizers(name).get("int8")
    made = quantizer is not None and quantizer.runtime == model.runtime
    return made and format_named(name).open is not None and not missing_packages(name)


def unmeasured_baseline(run: Run) -> Baseline:
    """Metric and cost of the original; no files, for nothing can time them."""
    score = None
    if run.data is not None:
        with run.stage("Metric of the original", "evaluate"):
            score = evaluate(program_runner(run.program), run.data, run.metric)
    return Baseline(score=score, cost=cost(run.program), artifacts={}, measurements={}, drops={})


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The predictions of original and result, and the line that the report has to end with."""

    original: Prediction
    result: Prediction
    line: str


def outlook(run: Run, program: Program, combination: Combination | None = None) -> Outlook:
    """The predictions; their line says from what they are, and that they are no more.

    The original's is in float where the request allows that; the result's in `combination` (the same).
    """
    first = models_of(run)[0]
    model = first if combination is None else model_for(run, combination)
    before, after = predict(first, operators(run.program)), predict(model, operators(program))
    error = model.evidence.left_out_network
    off = "" if error is None else f", {100 * error:.1f} % off on networks left out"
    of_first = "" if first == model else f" in {first.precision}"
    adapted = f", adapted to your device {model.adapted}" if model.adapted else ""
    line = (
        f"{_span(after)} on {run.target.name}:{model.name}, original {_span(before)}{of_first}, from"
        f" {model.evidence.rows} published latencies{adapted}{off}: {STATUS}"
    )
    return Outlook(original=before, result=after, line=line)


def _span(found: Prediction) -> str:
    return f"{found.estimate.ms:.4g} ms (90 %: {found.low_ms:.4g}-{found.high_ms:.4g})"
