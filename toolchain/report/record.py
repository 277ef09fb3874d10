"""The report's record as a file, and the questions every rendering asks of it.

The schema `edgefit.report/1` is documented in docs/report.md.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from toolchain.errors import InputError

Record = Mapping[str, Any]
FAMILY: Final = "edgefit.report/"
VERSION: Final = 1


def write_text(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all. OSError propagates: the caller knows the folder."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_record(record: Record, path: Path) -> None:
    """Write the record as JSON; NaN and infinity are refused, for JSON has none (ValueError)."""
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(path: Path) -> Record:
    """Read a report back.

    Raises:
        InputError: unreadable, not a report, or written by a newer version.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="name a report.json") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON", hint="name a report.json of edgefit") from error
    schema = str(record.get("schema", "")) if isinstance(record, dict) else ""
    if not schema.startswith(FAMILY):
        raise InputError(f"{path} is not a report of edgefit", hint="name a report.json of edgefit")
    if schema != f"{FAMILY}{VERSION}":
        raise InputError(f"{path} has schema {schema}, this version reads {FAMILY}{VERSION}", hint="upgrade")
    return dict(record)


def chosen_artifact(record: Record) -> Record | None:
    """The delivered file that the budget was planned for; None before there is a result."""
    result = record["result"]
    if result is None:
        return None
    return next((a for a in result["artifacts"] if a.get("chosen")), None)


def chosen_measurement(record: Record) -> Record | None:
    """The measurement of the chosen file; None when it was not measured."""
    artifact = chosen_artifact(record)
    if artifact is None:
        return None
    return _of_file(record["result"]["measurements"], artifact)


def reference_measurement(record: Record) -> Record | None:
    """The original, measured interleaved with the result; else the original's fastest float measurement."""
    baseline, result = record["baseline"], record["result"]
    if baseline is None:
        return None
    originals = {a["sha256"] for a in baseline["artifacts"]}
    if result is not None:
        for measurement in result["measurements"]:
            if measurement["sha256"] in originals and measurement["precision"] == "fp32":
                return dict(measurement)
    floats = [m for m in baseline["measurements"] if m["precision"] == "fp32"] or baseline["measurements"]
    return min(floats, key=lambda m: m["p50_ms"], default=None)


def reference_artifact(record: Record) -> Record | None:
    """The original's file that `reference_measurement` measured."""
    reference = reference_measurement(record)
    if reference is None:
        return None
    return _of_file(record["baseline"]["artifacts"], reference)


def limit_named(record: Record, name: str) -> Record | None:
    """The budget line `name` with its verdict; None when no such limit was set."""
    return next((entry for entry in record["budget"] if entry["name"] == name), None)


def measured_of(record: Record, artifact: Record) -> Record | None:
    """The result measurement of a delivered file; None when the target did not run it."""
    return _of_file(record["result"]["measurements"], artifact)


def samples_of(measurement: Record) -> list[float]:
    """All raw samples of a measurement in milliseconds, trials joined."""
    return [float(value) for trial in measurement["samples_ms"] for value in trial]


def _of_file(entries: Sequence[Record], artifact: Record) -> Record | None:
    """The last entry about the same file, run by the same runtime."""
    same = [e for e in entries if e["sha256"] == artifact["sha256"] and e["runtime"] == artifact["runtime"]]
    return same[-1] if same else None
