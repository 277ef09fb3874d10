"""What of edgefit works on this machine: packages, formats, targets, and the command that adds the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from typing import Any, Final

from toolchain import __version__, registry
from toolchain.assembly import format_named, missing_packages
from toolchain.contracts import Need, Route, Target
from toolchain.latency.calibrated import read, variants
from toolchain.latency.timings import cache_folder
from toolchain.plain import to_plain

PACKAGES: Final = {
    "torch": "",
    "numpy": "",
    "pillow": "",
    "rich": "",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "onnxsim": "onnx",
    "coremltools": "coreml",
    "litert-torch": "tflite",
    "ai-edge-litert": "tflite",
    "ai-edge-quantizer": "tflite",
    "emx-onnx-cgen": "micro",
    "tflite-micro": "micro",
}
"""Distribution -> the extra that brings it; the empty one comes with edgefit itself."""


def doctor() -> Mapping[str, Any]:
    """Versions and what is usable; loads none of the heavy packages."""
    return {
        "schema": "edgefit.doctor/1",
        "edgefit": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "cache": str(cache_folder()),
        "packages": [
            {"name": name, "version": version_of(name), "extra": extra} for name, extra in PACKAGES.items()
        ],
        "formats": [_format(name) for name in registry.names("toolchain.export")],
        "targets": targets()["targets"],
    }


def targets() -> Mapping[str, Any]:
    """Every target with its runtimes, and for each what is missing to use it from here."""
    found = []
    for name in registry.names("targets"):
        target: Target = registry.find("targets", "TARGET", name)
        runtimes = [
            {
                "name": runtime.name,
                "format": runtime.format,
                "precisions": [*runtime.precisions, *(["mixed"] if runtime.mixed else [])],
                "align": runtime.align,
                "install": _format(runtime.format)["install"],
            }
            for runtime in target.runtimes
        ]
        found.append(
            {
                "name": target.name,
                "summary": target.summary,
                "measurable": target.calibration is None,
                "variants": [] if target.calibration is None else list(variants(read(target.calibration))),
                "runtimes": runtimes,
            }
        )
    return {"schema": "edgefit.targets/1", "targets": found}


def devices() -> Mapping[str, Any]:
    """What can be benched from here now, route by route, and what is missing where it cannot."""
    routes = [_route(name) for name in registry.names("targets._routes")]
    found = [to_plain(device) for route in routes for device in route.found()]
    forms = [{"name": r.name, "form": r.form, "summary": r.summary} for r in routes]
    return {"schema": "edgefit.devices/1", "routes": forms, "devices": found}


def needs(target: str) -> Mapping[str, Any]:
    """What measuring on a target or device needs here, what of it is there, and how to get the rest.

    Raises:
        InputError: an unknown target.
    """
    name = target.partition(":")[0]
    routes = registry.names("targets._routes")
    ways: tuple[str, ...] = (name,)
    if name not in routes:
        known: Target = registry.find("targets", "TARGET", name)
        ways = known.routes
    found = [need for way in ways for need in _route(way).needs()]
    if not found:
        hint = f"edgefit predict MODEL --target {name} estimates from published measurements"
        found = [Need(name=f"a way to measure on {name}", found="", hint=hint)]
    return {"schema": "edgefit.doctor/1", "target": target, "needs": to_plain(found)}


def _route(name: str) -> Route:
    found: Route = registry.find("targets._routes", "ROUTE", name)
    return found


def version_of(distribution: str) -> str | None:
    """The installed version; None when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _format(name: str) -> dict[str, Any]:
    form, missing = format_named(name), missing_packages(name)
    return {
        "name": name,
        "summary": form.summary,
        "suffix": form.suffix,
        "missing": missing,
        "install": f"pip install 'edgefit[{form.extra}]'" if missing else "",
        "runs_here": form.open is not None and not missing,
        "because": form.closed_because,
    }
