"""Operators that left the accelerator, in words: how many, of which kinds, and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Plain = Mapping[str, Any]
NAMED: Final = 3
"""How many operators of a kind are named; the JSON has them all."""


def fallbacks(placement: Plain) -> str:
    """`3 of 66 operators left XNNPACK: 2 GATHER (a, b), 1 CAST (c)`; all of them may be where they should."""
    away, name = placement["away"], placement["accelerator"]
    if not away:
        return f"all {placement['operators']} operators ran on {name}"
    many = "operator" if placement["operators"] == 1 else "operators"
    return f"{len(away)} of {placement['operators']} {many} left {name}: {kinds(away)}"


def kinds(away: Sequence[Plain]) -> str:
    """Operators by kind with their first names: `2 GATHER (a, b), 1 CAST (c)`."""
    found: dict[str, list[str]] = {}
    for operator in away:
        found.setdefault(operator["kind"], []).append(operator["name"] or "unnamed")
    return ", ".join(f"{len(names)} {kind} ({_names(names)})" for kind, names in found.items())


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


HEADS: Final = ("runtime", "precision", "where the operators ran")


def placed(record: Plain) -> list[tuple[str, str, str]]:
    """Rows under `HEADS` of the result's measurements whose runtime told."""
    measured = [] if record["result"] is None else record["result"]["measurements"]
    return [
        (m["runtime"], m["precision"], fallbacks(m["placement"]))
        for m in measured
        if m.get("placement") is not None
    ]
