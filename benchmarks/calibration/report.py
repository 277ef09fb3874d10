"""The results as a Markdown table: errors on networks and families that the fits did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Model = Mapping[str, Any]
CORES = {
    "Cortex-A72": ("raspberry-pi-4", "raspberry-pi-4-1500mhz", "firefly-rk3399"),
    "Cortex-A73": ("odroid-n2", "khadas-vim4", "hikey-960"),
    "Cortex-A76": ("firefly-rk3588s",),
}
Asked = tuple[str, str, Callable[[Model], bool], float]
ASKED: tuple[Asked, ...] = (
    ("iPhone, Core ML, neural engine, fp16", "iphone", lambda m: m["precision"] == "fp16", 12),
    ("Cortex-A72, A73, A76, LiteRT CPU, fp32", "traffic-camera", lambda m: _is_litert(m, "fp32"), 12),
    ("Cortex-A72, A73, A76, LiteRT CPU, int8", "traffic-camera", lambda m: _is_litert(m, "int8"), 12),
    ("Jetson, TensorRT, fp16", "jetson", lambda m: m["precision"] == "fp16", 15),
)
"""What was asked: title, target, which models, and the limit of the mean error in percent."""


def _is_litert(model: Model, precision: str) -> bool:
    return bool(model["runtime"] == "litert" and model["precision"] == precision)


def _by_core() -> Iterator[Asked]:
    for core, boards in CORES.items():
        for precision in ("fp32", "int8"):

            def wanted(model: Model, boards: tuple[str, ...] = boards, precision: str = precision) -> bool:
                return _is_litert(model, precision) and model["variant"] in boards

            yield f"{core} alone, {precision}", "traffic-camera", wanted, 12


def panels(entries: Mapping[str, Sequence[Model]]) -> list[tuple[str, float, Sequence[Mapping[str, Any]]]]:
    """What was asked, for the plot."""
    return [
        (title, limit, [r for m in entries.get(target, ()) if wanted(m) for r in m["residuals"]])
        for title, target, wanted, limit in ASKED
    ]


def results_text(entries: Mapping[str, Sequence[Model]]) -> str:
    """Everything as Markdown."""
    return "\n".join(_lines(entries)) + "\n"


def _lines(entries: Mapping[str, Sequence[Model]]) -> Iterator[str]:
    yield "# Calibrated latency models: errors on networks they have not seen"
    yield ""
    yield "Mean absolute relative errors. Left out: one network at all its input sizes and on all devices, or"
    yield "one whole family. Coverage: rows inside the 90 % interval made without their network."
    yield ""
    yield "| asked | limit | rows | network unseen | family unseen | coverage |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for title, target, wanted, limit in (*ASKED, *_by_core()):
        models = [m for m in entries.get(target, ()) if wanted(m)]
        rows = [r for m in models for r in m["residuals"]]
        cover = _weighted(models)
        yield (
            f"| {title} | {limit} % | {len(rows)} | {_percent(_mean(rows, 'predicted'))} |"
            f" {_percent(_mean(rows, 'family_unseen'))} | {_percent(cover)} |"
        )
    yield ""
    yield "![predicted against measured](results.svg)"
    for target, models in entries.items():
        yield ""
        yield f"## {target}"
        yield ""
        yield "| variant | runtime | precision | threads | networks | rows | network unseen | family unseen |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
        for model in models:
            evidence = model["evidence"]
            yield (
                f"| {model['variant']} | {model['engine']} | {model['precision']} |"
                f" {model['threads'] or '-'} | {evidence['networks']} | {evidence['rows']} |"
                f" {_percent(evidence['left_out_network'])} |"
                f" {_percent(evidence['left_out_family'])} |"
            )


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [abs(r[key] / r["ms"] - 1) for r in rows if r[key] is not None]
    return float(np.mean(known)) if known else None


def _weighted(models: Sequence[Model]) -> float | None:
    pairs = [(m["evidence"]["interval_coverage"], m["evidence"]["rows"]) for m in models]
    known = [(c, n) for c, n in pairs if c is not None]
    return sum(c * n for c, n in known) / sum(n for _, n in known) if known else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
