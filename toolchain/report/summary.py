"""What a run found, for the terminal: the verdict first, then the budget, then the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolchain.report import words
from toolchain.report.record import (
    Record,
    chosen_artifact,
    chosen_measurement,
    measured_of,
    reference_artifact,
    reference_measurement,
)


def render_summary(record: Record, *, out: str | None = None) -> str:
    """A short plain text, lines joined by newlines; `out` is where the files are, when there are any."""
    lines = list(_headline(record))
    if record["kind"] == "compress":
        budget = list(_budget(record))
        lines += ["", *budget] if budget else []
        lines += ["", *_before_after(record), "", *_files(record, out)]
        lines += _storage(record)
        lines += _failures(record)
    elif record["kind"] == "plan":
        lines += ["", *_plan(record, out)]
    else:
        lines += ["", *_bench(record)]
    lines += [f"note: {note}" for note in record["notes"]]
    return "\n".join(lines) + "\n"


def _headline(record: Record) -> Iterator[str]:
    verdict = ", ".join(filter(None, (words.headline(record), words.failures(record))))
    yield f"{verdict}  {record['model']['name']} on {record['target']['name']}"
    if record["plan"] is not None:
        yield record["plan"]["reason"]
    yield from words.levers(record)


def _budget(record: Record) -> Iterator[str]:
    rows = [("budget", "limit", "found", "verdict")]
    for entry in record["budget"]:
        found = words.limit_amount(entry, "value")
        if entry["low"] is not None and entry["high"] is not None:
            found += f" (95 %: {words.span(entry['low'], entry['high'])})"
        name = words.LIMIT_NAMES.get(entry["name"], entry["name"])
        rows.append((name, words.limit_amount(entry, "limit"), found, entry["verdict"]))
    return table(rows) if len(rows) > 1 else iter(())


def _before_after(record: Record) -> Iterator[str]:
    baseline, result = record["baseline"], record["result"]
    before, after = reference_measurement(record), chosen_measurement(record)
    old, new = reference_artifact(record), chosen_artifact(record)
    score = (new or {}).get("metric") or result["metric"]
    times = [None if m is None else m["p50_ms"] for m in (before, after)]
    sizes = [None if a is None else a["size_bytes"] for a in (old, new)]
    yield from table(
        [
            ("", "original", "result", ""),
            ("latency (p50)", *map(words.milliseconds, times), words.factor(*times)),
            ("metric", words.metric(baseline["metric"]), words.metric(score), _change(record, score)),
            ("file size", *map(words.size, sizes), words.factor(*sizes)),
            *(
                (label, words.count(old), words.count(new), words.factor(old, new))
                for label, old, new in cost_rows(record)
            ),
        ]
    )


def _change(record: Record, score: Record | None) -> str:
    before = record["baseline"]["metric"]
    return "" if before is None or score is None else f"{score['value'] - before['value']:+.2f} points"


def cost_rows(record: Record) -> list[tuple[str, float, float]]:
    """(label, original, result) of the exact costs of one inference."""
    old, new = record["baseline"]["cost"], record["result"]["cost"]
    labels = (("MACs", "macs"), ("parameters", "params"), ("neurons", "neurons"))
    return [(label, old[key], new[key]) for label, key in labels]


def _files(record: Record, out: str | None) -> Iterator[str]:
    rows = [("file", "size", "metric", "latency (p50)", "")]
    for artifact in record["result"]["artifacts"]:
        measured = measured_of(record, artifact)
        rows.append(
            (
                artifact["path"],
                words.size(artifact["size_bytes"]),
                words.metric(artifact["metric"]),
                words.milliseconds(None if measured is None else measured["p50_ms"]),
                "<- for the budget" if artifact.get("chosen") else "",
            )
        )
    yield from table(rows)
    if out is not None:
        yield f"all in {out} (report.html shows the proof)"


def _storage(record: Record) -> list[str]:
    """How weights are stored, and packed files; nothing where they are not."""
    found, rows = record.get("storage"), words.stored_files(record)
    if not found:
        return []
    before, after = words.metric(found["metric_before"]), words.metric(found["metric_after"])
    lines = ["", f"stored as {words.stored(record)}; metric {before} -> {after}"]
    return [*lines, *table([words.STORED_HEADS, *rows])] if rows else lines


def _failures(record: Record) -> list[str]:
    """Checks: the failed ones in full, the others as counts."""
    checks = record["checks"]
    counts = [sum(c["status"] == s for c in checks) for s in ("pass", "fail", "not run")]
    lines = ["", f"checks: {counts[0]} passed, {counts[1]} failed, {counts[2]} not run"]
    for check in checks:
        if check["status"] == "fail":
            value, limit = words.check_value(check, "value"), words.check_value(check, "limit")
            against = f": {value} against {limit}" if value and limit else ""
            lines.append(
                f"  FAILED {check['name']} of {check['subject']}{against} {check['detail']}".rstrip()
            )
    return lines


def _plan(record: Record, out: str | None) -> Iterator[str]:
    plan = record["plan"]
    estimate = words.milliseconds(plan["estimate_ms"]) if plan["estimate_ms"] is not None else "none"
    yield f"{plan['runtime']}, {plan['precision']}; criterion {plan['criterion']}; estimate {estimate}"
    for entry in record["rounds"]:
        measured = words.milliseconds(entry["measured_ms"])
        yield f"round {entry['round']}: measured {measured}: {entry['decision']}"
    changed = [w for w in plan["widths"] if w["before"] != w["after"]]
    rows = [(w["layer"], str(w["before"]), str(w["after"])) for w in changed]
    yield from table([("layer", "before", "after"), *rows]) if rows else iter(("no layer becomes narrower",))
    if out is not None:
        target = record["request"]["target"]
        device = "" if target == "host" else f" --target {target}"
        device += f" --device {there}" if (there := record["request"].get("device")) else ""
        file = f"{out}/plan.json"
        yield f"plan in {file}; carry it out with: edgefit plan MODEL --apply {file}{device}"


def _bench(record: Record) -> Iterator[str]:
    baseline = record["baseline"]
    files = {(a["sha256"], a["runtime"]): a for a in baseline["artifacts"]}
    rows = [("runtime", "precision", "p50", "95 % interval", "p90", "file")]
    for m in baseline["measurements"]:
        artifact = files.get((m["sha256"], m["runtime"]))
        rows.append(
            (
                m["runtime"],
                m["precision"],
                words.milliseconds(m["p50_ms"]),
                words.span(m["p50_low_ms"], m["p50_high_ms"]),
                words.milliseconds(m["p90_ms"]),
                words.size(None if artifact is None else artifact["size_bytes"]),
            )
        )
    yield from table(rows)
    cost = baseline["cost"]
    yield f"{words.count(cost['macs'])} MACs, {words.count(cost['params'])} parameters"
    yield f"metric: {words.metric(baseline['metric'])}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows in aligned columns, two blanks apart, no trailing blanks."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
