"""`edgefit predict`: a latency from published measurements of other networks, said as what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from toolchain import registry
from toolchain.contracts import Target
from toolchain.errors import InputError
from toolchain.latency.calibrated import Calibration, Prediction, choose, evidence_of, predict, read
from toolchain.latency.operators import operators
from toolchain.load.opening import load
from toolchain.program.identity import fingerprint
from toolchain.values import Request

STATUS: Final = "predicted, not verified on the device"
EXIT_NOT_MEASURED: Final = 1


def prediction(request: Request, *, threads: int | None, require_measured: bool) -> Mapping[str, Any]:
    """The record of a prediction; `precisions` and `runtime` of the request narrow the choice of models.

    Raises:
        InputError: the target has no latency model, or none that fits the wishes.
    """
    name, _, variant = request.target.partition(":")
    target: Target = registry.find("targets", "TARGET", name)
    if target.calibration is None:
        raise InputError(
            f"target '{name}' is measured, there is no model to predict it from",
            hint=f"edgefit bench MODEL --target {name}",
        )
    known = read(target.calibration)
    models = choose(
        known, variant=variant, runtime=request.runtime, precisions=request.precisions, threads=threads
    )
    program = load(
        request.model, input_shape=request.input_shape, arch=request.arch, trust_pickle=request.trust_pickle
    )
    found = predict(models[0], operators(program))
    asked = variant or known.default
    return {
        "schema": "edgefit.predict/1",
        "status": STATUS,
        "exit_code": EXIT_NOT_MEASURED if require_measured else 0,
        "model": {"name": program.name, "fingerprint": fingerprint(program)},
        "target": {"name": name, "variant": models[0].variant, "asked": asked},
        **_model(models[0]),
        **_figures(found, known.coverage),
        "evidence": evidence_of(models[0]),
        "others": [m.name for m in models[1:]],
    }


def _model(model: Calibration) -> dict[str, Any]:
    return {
        "runtime": model.runtime,
        "engine": model.engine,
        "accelerator": model.accelerator,
        "precision": model.precision,
        "threads": model.threads,
    }


def _figures(found: Prediction, coverage: float) -> dict[str, Any]:
    return {
        "predicted_ms": found.estimate.ms,
        "low_ms": found.low_ms,
        "high_ms": found.high_ms,
        "coverage": coverage,
        "overhead_ms": found.overhead_ms,
        "layers": [{"layer": s.layer, "op": s.op, "ms": s.ms} for s in found.shares],
        "outside": list(found.outside),
    }
