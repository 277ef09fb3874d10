"""The record of several cases in one run, `edgefit.front/1`: what each found, from its own report.

The schema is documented in docs/report.md. A latency is measured or predicted, never one for the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from toolchain.report import words
from toolchain.report.record import (
    Record,
    chosen_artifact,
    chosen_measurement,
    reference_artifact,
    reference_measurement,
)

SCHEMA: Final = "edgefit.front/1"
DONE: Final = "done"
NOT_REACHED: Final = "not reached"
FAILED: Final = "failed"
WAITING: Final = "not run yet"
Entry = dict[str, Any]


def waiting(name: str, target: str, budget: Record) -> Entry:
    """A case before its turn; the others begin as a copy of it. `budget` holds only the limits asked for."""
    return {
        "name": name,
        "target": target,
        "budget": dict(budget),
        "status": WAITING,
        "exit_code": None,
        "verdict": None,
        "failed_checks": 0,
        "latency": None,
        "faster": None,
        "predicted": None,
        "metric": None,
        "cost": None,
        "runtime": None,
        "precision": None,
        "file": None,
        "dropped": [],
        "plan": None,
        "error": None,
        "notes": [],
        "seconds": 0.0,
    }


def done(entry: Entry, record: Record) -> Entry:
    """The case whose own report is `record`."""
    result, plan, original = record["result"], record["plan"], reference_measurement(record)
    found = chosen_measurement(record) if result is not None else _while_planning(record)
    latency = None if found is None else _latency(found)
    chosen = chosen_artifact(record)
    faster = None
    if latency is not None and original is not None:
        faster = original["p50_ms"] / latency["p50_ms"]
    return entry | {
        "status": DONE,
        "exit_code": record["exit_code"],
        "verdict": None if result is None else record["verdict"],
        "failed_checks": words.failed(record),
        "latency": latency,
        "faster": faster,
        "predicted": _predicted(record, measured=latency is not None),
        "metric": (chosen or {}).get("metric") or (result or {}).get("metric"),
        "cost": plan["cost"] if result is None else result["cost"],
        "runtime": (chosen or plan)["runtime"],
        "precision": (chosen or plan)["precision"],
        "file": None if chosen is None else {name: chosen[name] for name in ("path", "size_bytes")},
        "dropped": list(plan["dropped"]),
        "plan": f"{entry['name']}/plan.json",
        "notes": list(record["notes"]),
    }


def original(record: Record) -> Entry:
    """The network as handed in on one target; `record` is that of a run that only took the baseline."""
    baseline, measured, file = record["baseline"], reference_measurement(record), reference_artifact(record)
    return {
        "target": record["request"]["target"],
        "latency": None if measured is None else _latency(measured),
        "predicted": None if record["predicted"] is None else _interval(record["predicted"]["original"]),
        "metric": baseline["metric"],
        "cost": baseline["cost"],
        "runtime": None if measured is None else measured["runtime"],
        "precision": None if measured is None else measured["precision"],
        "file": None if file is None else {name: file[name] for name in ("path", "size_bytes")},
    }


def word(entry: Record) -> str:
    """What became of a case, in the words of its verdict; failed checks beside it."""
    if entry["status"] != DONE:
        return str(entry["status"])
    wrong = entry["failed_checks"]
    failures = f", {wrong} check{'s' * (wrong > 1)} failed" if wrong else ""
    return f"{entry['verdict'] or 'planned'}{failures}"


def latency_text(entry: Record) -> str:
    """Measured, else predicted and called so, else that it was not measured."""
    if entry["latency"] is not None:
        return words.interval(entry["latency"])
    predicted = entry["predicted"]
    if predicted is None:
        return words.NOT_MEASURED
    ends = ""
    if predicted["low_ms"] is not None:
        ends = f" (90 %: {words.span(predicted['low_ms'], predicted['high_ms'])})"
    return f"predicted {words.milliseconds(predicted['ms'])}{ends}"


def budget_text(entry: Record) -> str:
    """The limits of a case, amounts with what they are of: `0.300 ms, 20 M MACs`."""
    texts = []
    for name, limit in entry["budget"].items():
        amount = words.limit_amount({"name": name, "limit": limit}, "limit")
        what = {"macs": " MACs", "params": " parameters", "neurons": " neurons"}
        texts.append(f"drop {amount}" if name == "max_drop" else f"{amount}{what.get(name, '')}")
    return ", ".join(texts)


def notes(record: Record) -> Iterator[str]:
    """What readers should not miss: what all cases say once, the rest under the case's name."""
    cases = [case for case in record["cases"] if case["status"] == DONE]
    shared = [n for n in (cases[0]["notes"] if cases else []) if all(n in case["notes"] for case in cases)]
    yield from shared
    for case in record["cases"]:
        if case["error"] is not None:
            yield f"{case['name']}: {case['error']['message']}"
        yield from (f"{case['name']}: {note}" for note in case["notes"] if note not in shared)


def tally(record: Record) -> str:
    """`2 held, 1 not reached`, in the order of the cases."""
    found = [word({**case, "failed_checks": 0}) for case in record["cases"]]
    parts = [f"{found.count(each)} {each}" for each in dict.fromkeys(found)]
    wrong = sum(case["failed_checks"] for case in record["cases"])
    return ", ".join([*parts, f"{wrong} check{'s' * (wrong > 1)} FAILED"] if wrong else parts)


def exit_code(cases: Sequence[Record]) -> int | None:
    """The highest of the cases' codes; None while some were not run."""
    codes = [case["exit_code"] for case in cases]
    return None if None in codes else max(codes)


def _latency(measurement: Record) -> Entry:
    return {name: measurement[name] for name in ("p50_ms", "p50_low_ms", "p50_high_ms")}


def _interval(predicted: Record) -> Entry:
    return {name: predicted[name] for name in ("ms", "low_ms", "high_ms")}


def _predicted(record: Record, *, measured: bool) -> Entry | None:
    """The prediction that stands in where nothing was measured."""
    if record["predicted"] is not None:
        return _interval(record["predicted"]["result"])
    estimate = record["plan"]["estimate_ms"]
    return None if measured or estimate is None else {"ms": estimate, "low_ms": None, "high_ms": None}


def _while_planning(record: Record) -> Mapping[str, float] | None:
    """What a plan's network measured in its round of the closed loop; the original's for one left whole."""
    plan = record["plan"]
    for entry in record["rounds"]:
        if entry["measured_ms"] is not None and entry["estimate_ms"] == plan["estimate_ms"]:
            ends = {f"p50_{end}_ms": entry[f"{end}_ms"] for end in ("low", "high")}
            return {"p50_ms": entry["measured_ms"], **ends}
    whole = not plan["dropped"] and all(w["before"] == w["after"] for w in plan["widths"])
    kind = (plan["runtime"], plan["precision"])
    same = [m for m in record["baseline"]["measurements"] if (m["runtime"], m["precision"]) == kind]
    return same[0] if whole and same else None
