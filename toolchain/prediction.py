"""`edgefit predict`: a latency from published measurements of other networks, said as what it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from toolchain.artifacts import place
from toolchain.errors import InputError
from toolchain.latency.adapting import Measured, adapt
from toolchain.latency.calibrated import (
    Calibration,
    Prediction,
    choose,
    evidence_of,
    predict,
)
from toolchain.latency.operators import operators
from toolchain.load.opening import load
from toolchain.outlook import STATUS, known_models
from toolchain.plain import to_plain
from toolchain.program.identity import fingerprint
from toolchain.values import Request

EXIT_NOT_MEASURED: Final = 1
_FORMAT: Final = "a CSV file with the columns model (a path beside the file) and ms"


def prediction(
    request: Request, *, threads: int | None, require_measured: bool, calibration: Path | None = None
) -> Mapping[str, Any]:
    """The record of a prediction; `precisions` and `runtime` of the request narrow the choice of models.

    `calibration` is a file that `edgefit calibrate` wrote; without it the published models are used.

    Raises:
        InputError: the target has no latency model, or none that fits the wishes.
    """
    name, _, variant = request.target.partition(":")
    known = known_models(name, calibration)
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
        "adapted": models[0].adapted,
        **_figures(found, known.coverage),
        "evidence": evidence_of(models[0]),
        "others": [m.name for m in models[1:]],
    }


def calibrate(request: Request, *, threads: int | None) -> Mapping[str, Any]:
    """Adapts the target's latency model to the measurements in `request.model`; writes `request.out`.

    Raises:
        InputError: an unusable file, or nothing that fits the wishes.
    """
    name, _, variant = request.target.partition(":")
    known = known_models(name)
    model = choose(
        known, variant=variant, runtime=request.runtime, precisions=request.precisions, threads=threads
    )[0]
    found = tuple(
        Measured(operators=operators(load(path, trust_pickle=request.trust_pickle)), ms=ms)
        for path, ms in measurements(request.model)
    )
    adapted, change = adapt(model, found, source=request.model.name)
    asked = variant or known.default
    own = replace(known, default=asked, aliases={asked: model.variant}, absent={}, models=(adapted,))
    text = json.dumps(to_plain(own), indent=1) + "\n"
    place(request.out, lambda path: path.write_text(text, encoding="utf-8"))
    return {
        "schema": "edgefit.calibrate/1",
        "target": {"name": name, "variant": model.variant, "asked": asked},
        **_model(model),
        **to_plain(change),
        "fits": [
            {
                "ms": one.ms,
                "published_ms": predict(model, one.operators).estimate.ms,
                "adapted_ms": predict(adapted, one.operators).estimate.ms,
            }
            for one in found
        ],
        "written": str(request.out),
    }


def measurements(path: Path) -> tuple[tuple[Path, float], ...]:
    """The lines of a CSV file with the columns `model` (a path, relative to the file) and `ms`.

    Raises:
        InputError: not such a file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            table = list(csv.DictReader(lines))
        found = tuple((path.parent / line["model"].strip(), float(line["ms"])) for line in table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}", hint=_FORMAT) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no table of measurements: {error}", hint=_FORMAT) from error
    if not found:
        raise InputError(f"{path} has no measurements", hint=_FORMAT)
    return found


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
