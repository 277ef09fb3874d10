"""`edgefit gate`, `noise` and `history`: flags to work, records to text and files."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from toolchain import registry
from toolchain.artifacts import place
from toolchain.contracts import Target
from toolchain.deliver import refuse_foreign_folder, replace_folder
from toolchain.errors import InputError
from toolchain.gate.comparison import gate, target_named
from toolchain.gate.history import append, history
from toolchain.gate.limits import Limits
from toolchain.gate.noise import measure_noise
from toolchain.gate.record import GateRequest
from toolchain.gate.sides import Wishes
from toolchain.reaching import reached
from toolchain.report.gate_ci import github_annotations, junit_xml
from toolchain.report.gate_text import gate_markdown, gate_text, noise_text
from toolchain.report.history_page import history_text, picture
from toolchain.screen import only_ours, progress_on
from toolchain.values import Preprocessing

Outcome = tuple[str, int]


def run_gate(flags: argparse.Namespace) -> Outcome:
    """Compare, write the files, say it."""
    request = gate_request(flags)
    refuse_foreign_folder(flags.out)
    with only_ours(debug=flags.debug) as stderr, progress_on(stderr, quiet=flags.quiet) as progress:
        record = gate(request, progress)
    replace_folder(flags.out, lambda folder: _write(folder, record))
    if flags.history is not None:
        append(flags.history, record)
    if flags.json:
        return _as_json(record), record["exit_code"]
    annotated = flags.annotate == "github" or (
        flags.annotate == "auto" and os.environ.get("GITHUB_ACTIONS") == "true"
    )
    text = gate_text(record) + (github_annotations(record) if annotated else "")
    return text, record["exit_code"]


def wishes_of(flags: argparse.Namespace) -> Wishes:
    """How models are opened, of `gate` and `noise`."""
    known, shapes = Preprocessing(), flags.input_shape
    return Wishes(
        target=_target(flags),
        runtime=flags.runtime,
        precision=flags.precision,
        data=getattr(flags, "data", None),
        preprocessing=_preprocessing(flags) if hasattr(flags, "data") else known,
        arch=flags.arch,
        input_shape=tuple(shapes) if shapes else None,
        trust_pickle=flags.trust_pickle,
    )


def _target(flags: argparse.Namespace) -> Target:
    """The target, or the device that a route reaches as one.

    Raises:
        CompressError: unknown, not reached, or without a clock.
    """
    if flags.device is None:
        return target_named(flags.target)
    found = reached(registry.find("targets", "TARGET", flags.target), flags.device, probed=False)
    if found.device is None:
        raise InputError(
            f"{flags.device} has no clock to compare latencies by",
            hint=f"--max-instructions PERCENT --emulated {flags.device} compares counts",
        )
    device = found.device
    return replace(found.target, connect=lambda: device)


def _preprocessing(flags: argparse.Namespace) -> Preprocessing:
    known = Preprocessing()
    return Preprocessing(
        mean=flags.mean or known.mean, std=flags.std or known.std, resize=flags.resize, source="flags"
    )


def gate_request(flags: argparse.Namespace) -> GateRequest:
    """The request that the flags of `gate` make; percents become ratios.

    Raises:
        InputError: the target cannot be measured.
    """

    def ratio(percent: float | None) -> float | None:
        return None if percent is None else percent / 100

    return GateRequest(
        candidate=flags.candidate,
        baseline=flags.baseline,
        wishes=wishes_of(flags),
        threads=flags.threads,
        clock=flags.clock,
        max_regression=flags.max_regression / 100,
        seconds=flags.seconds,
        on_inconclusive=flags.on_inconclusive,
        limits=Limits(
            budget_ms=flags.budget_ms,
            max_mb=flags.max_mb,
            max_growth=ratio(flags.max_growth),
            max_memory_mb=flags.max_memory_mb,
            max_memory_growth=ratio(flags.max_memory_growth),
            max_instructions=ratio(flags.max_instructions),
            emulated=flags.emulated,
            max_fallbacks=flags.max_fallbacks,
            min_agreement=flags.min_agreement,
            max_drop=flags.max_drop,
            data=flags.data,
            metric=flags.metric,
            preprocessing=_preprocessing(flags),
        ),
    )


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    (folder / "gate.json").write_text(_as_json(record), encoding="utf-8")
    (folder / "gate.md").write_text(gate_markdown(record), encoding="utf-8")
    (folder / "junit.xml").write_text(junit_xml(record), encoding="utf-8")


def _as_json(record: object) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def run_noise(flags: argparse.Namespace) -> Outcome:
    """Measure the device's noise, keep it, say what it hides."""
    request = GateRequest(
        candidate=Path(),
        baseline="",
        wishes=wishes_of(flags),
        threads=flags.threads,
        clock=flags.clock,
        seconds=flags.seconds,
    )
    with only_ours(debug=flags.debug) as stderr, progress_on(stderr, quiet=flags.quiet) as progress:
        record = measure_noise(request, flags.model, progress)
    return _as_json(record) if flags.json else noise_text(record), 0


def run_history(flags: argparse.Namespace) -> Outcome:
    """Read the lines, mark the changes, draw."""
    record = history(flags.file)
    if flags.picture is not None:
        place(flags.picture, lambda path: path.write_text(picture(record, flags.picture), encoding="utf-8"))
    return _as_json(record) if flags.json else history_text(record), 0


RUNNERS: Final[Mapping[str, Callable[[argparse.Namespace], Outcome]]] = {
    "gate": run_gate,
    "noise": run_noise,
    "history": run_history,
}
