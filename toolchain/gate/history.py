"""The history of a model's gates: a file of JSON lines that is only added to, and where it changed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolchain.errors import InputError
from toolchain.latency.changes import METHOD, changes
from toolchain.latency.noise import identity_of
from toolchain.plain import from_plain
from toolchain.values import Conditions

SCHEMA = "edgefit.history/1"


def append(path: Path, record: Mapping[str, Any]) -> None:
    """One line more for a gate's record; a line that an interruption cut short is left behind whole.

    Raises:
        InputError: the file cannot be written.
    """
    measured = record["candidate"]["measurement"]
    line = {
        "schema": SCHEMA,
        "created": record["created"],
        "commit": _commit(path),
        "verdict": record["verdict"],
        "target": record["target"],
        "identity": identity_of(from_plain(Conditions, measured["conditions"])),
        "candidate": record["candidate"]["label"],
        "baseline": record["baseline"]["label"],
        "sha256": measured["sha256"],
        "ratio": record["checks"][0]["value"],
        **{key: measured[key] for key in ("p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "cpu_p50_ms")},
    }
    try:
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as file:
            # One write: lines of gates that end at the same time do not mix.
            file.write(("\n" if torn else "") + json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"cannot write --history {path}: {error.strerror}") from error


def _commit(path: Path) -> str | None:
    """The commit that is measured: CI systems say it, else git does."""
    for variable in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        if os.environ.get(variable):
            return os.environ[variable]
    try:
        done = subprocess.run(
            ["git", "-C", str(path.absolute().parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def history(path: Path) -> dict[str, Any]:
    """The record of a history: series of equal conditions and files of one name, each with its changes.

    Raises:
        InputError: unreadable, or no line of ours.
    """
    lines, skipped = _lines(path)
    series: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        key = json.dumps([line["target"], line["candidate"], line["identity"]], sort_keys=True)
        series.setdefault(key, []).append(line)
    return {
        "schema": SCHEMA,
        "method": METHOD,
        "skipped_lines": skipped,
        "series": [
            {
                "candidate": found[0]["candidate"],
                "target": found[0]["target"],
                "identity": found[0]["identity"],
                "points": found,
                "changes": [asdict(c) for c in changes([line["p50_ms"] for line in found])],
            }
            for found in series.values()
        ],
    }


def _lines(path: Path) -> tuple[list[Mapping[str, Any]], int]:
    """(our lines, how many are not whole)."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", hint="edgefit gate --history FILE makes it"
        ) from error
    found, skipped = [], 0
    needed = {"schema", "created", "target", "candidate", "identity", "p50_ms", "p50_low_ms", "p50_high_ms"}
    for text in filter(str.strip, texts):
        try:
            line = json.loads(text)
            whole = line["schema"] == SCHEMA and needed <= set(line) and float(line["p50_ms"]) > 0
        except (ValueError, TypeError, KeyError):
            whole = False
        if whole:
            found.append(line)
        else:
            skipped += 1
    if not found:
        raise InputError(f"{path} has no line of a gate", hint="edgefit gate --history FILE adds one")
    return found, skipped
