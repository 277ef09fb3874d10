"""The report as Markdown: everything of the page but the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from toolchain.report import words
from toolchain.report.operators import HEADS, placed
from toolchain.report.record import (
    Record,
    chosen_artifact,
    chosen_measurement,
    measured_of,
    reference_artifact,
    reference_measurement,
)
from toolchain.report.summary import cost_rows


def render_markdown(record: Record) -> str:
    """The whole report; sections without content are left out."""
    sections: Sequence[Callable[[Record], Iterator[str]]] = (
        _title,
        _budget,
        _before_after,
        _files,
        _checks,
        _plan,
        _training,
        _storage,
        _measurements,
        _operators,
        _conditions,
        _origin,
    )
    blocks = ("\n".join(part(record)) for part in sections)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _title(record: Record) -> Iterator[str]:
    verdict = ", ".join(filter(None, (words.headline(record), words.failures(record)))).lower()
    yield f"# {record['model']['name']} on {record['target']['name']}: {verdict}"
    if record["plan"] is not None:
        yield f"\n{record['plan']['reason']}."
    if record["notes"]:
        yield "\n" + "\n".join(f"- {note}" for note in record["notes"])


def _budget(record: Record) -> Iterator[str]:
    rows = [
        (
            words.LIMIT_NAMES.get(e["name"], e["name"]),
            words.limit_amount(e, "limit"),
            words.limit_amount(e, "value"),
            "" if e["low"] is None else words.span(e["low"], e["high"]),
            f"**{e['verdict']}**",
        )
        for e in record["budget"]
    ]
    yield from section("Budget", ("limit on", "limit", "found", "95 % interval", "verdict"), rows)


def _before_after(record: Record) -> Iterator[str]:
    if record["result"] is None:
        return
    baseline, result, new = record["baseline"], record["result"], chosen_artifact(record)
    score = (new or {}).get("metric") or result["metric"]
    before, after = reference_measurement(record), chosen_measurement(record)
    old = reference_artifact(record)
    rows = [
        ("latency (p50)", words.interval(before), words.interval(after)),
        ("metric", words.metric(baseline["metric"]), words.metric(score)),
        ("file size", *(words.size(None if a is None else a["size_bytes"]) for a in (old, new))),
        *((label, words.count(a), words.count(b)) for label, a, b in cost_rows(record)),
    ]
    yield from section("Original and result", ("", "original", "result"), rows)


def _files(record: Record) -> Iterator[str]:
    if record["result"] is None:
        return
    rows = []
    for artifact in record["result"]["artifacts"]:
        measured = measured_of(record, artifact)
        name = f"**{artifact['path']}**" if artifact.get("chosen") else artifact["path"]
        kind = f"{artifact['format']} {artifact['precision']}"
        latency = words.milliseconds(None if measured is None else measured["p50_ms"])
        row = (name, kind, words.size(artifact["size_bytes"]), words.metric(artifact["metric"]), latency)
        rows.append((*row, f"`{artifact['sha256'][:12]}`"))
    yield from section("Files", ("file", "kind", "size", "metric", "latency (p50)", "sha256"), rows)


def _checks(record: Record) -> Iterator[str]:
    rows = [
        (
            check["name"],
            check["subject"],
            check["status"],
            words.check_value(check, "value"),
            words.check_value(check, "limit"),
            check["detail"],
        )
        for check in record["checks"]
    ]
    yield from section("Checks", ("check", "of", "status", "value", "limit", "detail"), rows)


def _plan(record: Record) -> Iterator[str]:
    plan = record["plan"]
    if plan is None:
        return
    yield "## Plan\n"
    yield f"Runtime {plan['runtime']}, precision {plan['precision']}, criterion {plan['criterion']}."
    if plan["estimate_ms"] is not None:
        yield f"Estimate {words.milliseconds(plan['estimate_ms'])} ({plan['estimate_source']})."
    yield from (f"{lever}." for lever in words.levers(record))
    rows = [
        (
            words.contender(c),
            words.precision(c),
            "" if c["estimate_ms"] is None else words.milliseconds(c["estimate_ms"]),
            f"{c['damage']:.3g}",
            f"{100 * c['kept_ratio']:.0f} %",
            "chosen" if c["chosen"] else "",
            c["note"],
        )
        for c in plan["candidates"]
    ]
    heads = ("runtime", "precision", "estimate", "damage", "parameters kept", "", "note")
    yield from section("Candidates", heads, rows, level=3)
    rounds = [
        (
            str(r["round"]),
            "" if r["estimate_ms"] is None else words.milliseconds(r["estimate_ms"]),
            words.milliseconds(r["measured_ms"]),
            r["decision"],
        )
        for r in record["rounds"]
    ]
    yield from section("Rounds", ("round", "estimate", "measured", "decision"), rounds, level=3)
    widths = [(w["layer"], str(w["before"]), str(w["after"])) for w in plan["widths"]]
    yield from section("Widths", ("layer", "before", "after"), widths, level=3)


def _training(record: Record) -> Iterator[str]:
    training = record["training"]
    if training is None:
        return
    rows = [
        (
            str(e["epoch"]) + (" (best)" if e["epoch"] == training["best_epoch"] else ""),
            f"{e['loss']:.4f}",
            f"{e['metric']:.2f}",
            f"{e['lr']:.4g}",
            words.seconds(e["seconds"]),
        )
        for e in training["epochs"]
    ]
    yield from section("Fine-tuning", ("epoch", "loss", "metric", "learning rate", "time"), rows)


def _storage(record: Record) -> Iterator[str]:
    found, rows = record.get("storage"), words.stored_files(record)
    if not found:
        return
    yield "## Storage\n"
    yield f"{words.stored(record)}. Metric before {words.metric(found['metric_before'])}, after"
    yield f"{words.metric(found['metric_after'])}."
    if not rows:
        return
    yield "`edgefit restore` makes the files again, to the bit.\n"
    yield from section("Packed files", words.STORED_HEADS, rows, level=3)
    heads = words.LAYER_HEADS
    yield from section(f"Layers of {found['files'][0]['path']}", heads, words.stored_layers(record), level=3)


def all_measurements(record: Record) -> list[tuple[str, Record]]:
    """("original" | "result", measurement): the original alone first, then the interleaved comparison."""
    baseline, result = record["baseline"], record["result"]
    rows = [] if baseline is None else [("original", m) for m in baseline["measurements"]]
    if result is not None:
        originals = {a["sha256"] for a in baseline["artifacts"]} if baseline is not None else set()
        delivered = {a["sha256"] for a in result["artifacts"]}
        for number, m in enumerate(result["measurements"]):
            original = m["sha256"] in originals and (m["sha256"] not in delivered or number == 0)
            rows.append(("original, interleaved" if original else "result, interleaved", m))
    return rows


def _measurements(record: Record) -> Iterator[str]:
    rows = [
        (
            which,
            m["runtime"],
            m["precision"],
            words.interval(m),
            words.milliseconds(m["p90_ms"]),
            words.milliseconds(m["cpu_p50_ms"]),
            f"{len(m['samples_ms'])} x {max(map(len, m['samples_ms']), default=0)}",
        )
        for which, m in all_measurements(record)
    ]
    heads = ("what", "runtime", "precision", "p50", "p90", "CPU time p50", "trials x runs")
    yield from section("Measurements", heads, rows)


def _operators(record: Record) -> Iterator[str]:
    yield from section("Operators", HEADS, placed(record))


def conditions(record: Record) -> list[tuple[str, str]]:
    """(name, value) of the conditions of the last measurement; what could not be read is "unknown"."""
    found = all_measurements(record)
    if not found:
        return []
    last = found[-1][1]["conditions"]
    versions = dict.fromkeys(
        f"{m['conditions']['runtime']} {m['conditions']['runtime_version']}" for _, m in found
    )
    load, frequency = last["load"], last["frequency_mhz"]
    return [
        ("device", last["device"]),
        ("CPU", last["cpu"] or "unknown"),
        ("operating system", last["os"]),
        ("runtimes", ", ".join(versions)),
        ("threads", str(last["threads"])),
        ("cores used", ", ".join(map(str, last["affinity"])) if last["affinity"] else "unknown"),
        ("governor", last["governor"] or "unknown"),
        ("frequency", f"{frequency:.0f} MHz" if frequency else "unknown"),
        ("load before", " ".join(f"{x:.2f}" for x in load) if load else "unknown"),
    ]


def _conditions(record: Record) -> Iterator[str]:
    yield from section("Conditions", ("condition", "value"), conditions(record))


def origin(record: Record) -> list[tuple[str, str]]:
    """(name, value) of what went in: network, data, preprocessing, tool, time."""
    data, tool = record["data"], record["tool"]
    rows = [("network", f"{record['model']['name']} ({record['model']['fingerprint'][:16]})")]
    if data is None:
        rows.append(("data", "none: metric not measured"))
    else:
        rows.append(("data", f"{data['name']}: {data['train']} training, {data['validation']} validation"))
        rows.append(("skipped images", _skipped(data["skipped"])))
        pre = data["preprocessing"]
        if pre is not None:
            resize = f", resized to {pre['resize'][0]} x {pre['resize'][1]}" if pre["resize"] else ""
            text = f"mean {pre['mean']}, std {pre['std']}{resize} ({pre['source']})"
            rows.append(("preprocessing", text))
    if view := (record["plan"] or {}).get("inputs"):
        rows.append(("handed to the network", f"{view['text']}, after preprocessing"))
    rows.append(("time by stage", ", ".join(f"{k} {words.seconds(v)}" for k, v in record["timings"].items())))
    rows.append(("made by", f"{tool['name']} {tool['version']}, {record['created']}"))
    return rows


def _skipped(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)}: {', '.join(names[:5])}{more}"


def _origin(record: Record) -> Iterator[str]:
    yield from section("Origin", ("what", "value"), origin(record))


def section(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, level: int = 2
) -> Iterator[str]:
    """A titled table; nothing when it has no rows."""
    if not rows:
        return
    yield f"{'' if level == 2 else chr(10)}{'#' * level} {title}\n"
    for row in (heads, ["---"] * len(heads), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
