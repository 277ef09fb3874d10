"""The report as one self-contained HTML page: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from toolchain.report import plots, words
from toolchain.report.markdown_text import all_measurements, conditions, origin
from toolchain.report.markup import document, section, table
from toolchain.report.operators import HEADS, placed
from toolchain.report.record import (
    Record,
    chosen_artifact,
    chosen_measurement,
    limit_named,
    measured_of,
    reference_artifact,
    reference_measurement,
    samples_of,
)
from toolchain.report.saliency import saliency
from toolchain.report.summary import cost_rows


def render_page(record: Record) -> str:
    """The whole page."""
    title = f"{record['model']['name']} on {record['target']['name']}"
    pictures = "".join((*_scatter(record), *_distribution(record)))
    body = "\n".join(
        (
            _header(record, title),
            _tiles(record),
            f'<div class="grid2">{pictures}</div>' if pictures else "",
            *_notes(record),
            *_budget(record),
            *_files(record),
            *_checks(record),
            *_inputs(record),
            *_widths(record),
            *_decision(record),
            *_training(record),
            *_storage(record),
            *_measurements(record),
            *section("Operators", table(HEADS, placed(record))),
            *section("Conditions", table((), conditions(record))),
            *section("Origin", table((), origin(record))),
        )
    )
    return document(title, body)


def _header(record: Record, title: str) -> str:
    verdict = record["verdict"].split()[0] if record["budget"] else "measured"
    reason = record["plan"]["reason"] if record["plan"] is not None else record["target"]["summary"]
    badge = words.headline(record)
    failures = words.failures(record)
    wrong = f' <span class="badge over">{failures}</span>' if failures else ""
    return (
        f'<header><span class="badge {verdict}">{badge}</span>{wrong}<h1>{escape(title)}</h1>'
        f'<p class="sub">{escape(reason)}</p></header>'
    )


def _notes(record: Record) -> Iterator[str]:
    notes = "".join(f"<li>{escape(note)}</li>" for note in record["notes"])
    yield from section("Worth knowing", f"<ul>{notes}</ul>" if notes else "")


def _tiles(record: Record) -> str:
    before, after = reference_measurement(record), chosen_measurement(record)
    if record["result"] is None:
        times = [("latency (p50)", words.milliseconds(before["p50_ms"] if before else None), "", "")]
        score = words.metric(record["baseline"]["metric"]) if record["baseline"] else words.NOT_MEASURED
        return _tile_row([*times, ("metric", score, "", "")])
    old, new = reference_artifact(record), chosen_artifact(record)
    score = (new or {}).get("metric") or record["result"]["metric"]
    was = record["baseline"]["metric"]
    change = f"{score['value'] - was['value']:+.2f} points" if score and was else ""
    ms = [None if m is None else m["p50_ms"] for m in (before, after)]
    sizes = [None if a is None else a["size_bytes"] for a in (old, new)]
    macs = next(row for row in cost_rows(record) if row[0] == "MACs")
    return _tile_row(
        [
            (
                "latency (p50)",
                words.milliseconds(ms[1]),
                words.milliseconds(ms[0]),
                _less(ms[0], ms[1], "faster"),
            ),
            ("metric", words.metric(score), words.metric(was), change),
            ("model file", words.size(sizes[1]), words.size(sizes[0]), _less(sizes[0], sizes[1], "smaller")),
            ("MACs", words.count(macs[2]), words.count(macs[1]), _less(macs[1], macs[2], "fewer")),
        ]
    )


def _less(before: float | None, after: float | None, word: str) -> str:
    """`2.10x faster` where it is less than before by at least one percent."""
    if not before or not after or after > 0.99 * before:
        return ""
    return f"{words.factor(before, after)} {word}"


def _tile_row(tiles: Sequence[tuple[str, str, str, str]]) -> str:
    cells = []
    for name, value, was, gain in tiles:
        before = f"was {escape(was)} " if was else ""
        style = "change" if "points" in gain else "gain"
        extra = f'<span class="{style}">{escape(gain)}</span>' if gain else ""
        cells.append(
            f'<div class="tile"><div class="name">{escape(name)}</div>'
            f'<div class="value">{escape(value)}</div>'
            f'<div class="was">{before}{extra}</div></div>'
        )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _points(record: Record) -> Iterator[plots.Point]:
    """Every file whose metric and latency are both known; the quantized original by its measured drop."""
    baseline, result = record["baseline"], record["result"]
    chosen, reference = chosen_artifact(record), reference_measurement(record)
    delivered = {(a["sha256"], a["runtime"]) for a in result["artifacts"]} if result is not None else set()
    if baseline is not None and baseline["metric"] is not None:
        for m in baseline["measurements"]:
            if (m["sha256"], m["runtime"]) in delivered:
                continue  # nothing was pruned: the same file is drawn below, with its newer measurement
            same = reference is not None and (m["sha256"], m["runtime"]) == (
                reference["sha256"],
                reference["runtime"],
            )
            drop = 0.0 if m["precision"] == "fp32" else baseline.get("drops", {}).get(_kind(m))
            if drop is not None:
                shown = reference if same and reference is not None else m
                yield _point(f"original, {_kind(m)}", shown, baseline["metric"]["value"] - drop, "before")
    for artifact in result["artifacts"] if result is not None else ():
        m = measured_of(record, artifact)
        if m is not None and artifact["metric"] is not None:
            style = "after" if artifact == chosen else "other"
            yield _point(f"result, {_kind(m)}", m, artifact["metric"]["value"], style)


def _kind(measurement: Record) -> str:
    return f"{measurement['runtime']} {measurement['precision']}"


def _point(label: str, m: Record, metric: float, style: str) -> plots.Point:
    low, high = m["p50_low_ms"], m["p50_high_ms"]
    return plots.Point(label=label, ms=m["p50_ms"], low_ms=low, high_ms=high, metric=metric, style=style)


def _scatter(record: Record) -> Iterator[str]:
    points = list(_points(record))
    if not points:
        return
    limit = limit_named(record, "ms")
    picture = plots.scatter(
        points,
        budgets_ms=() if limit is None else (limit["limit"],),
        y_title=record["baseline"]["metric"]["name"],
    )
    caption = "Grey: as handed in. Blue: chosen for the budget. Violet: other files. Bars: 95 % intervals."
    yield from section("Accuracy against latency", picture, caption)


def _distribution(record: Record) -> Iterator[str]:
    before, after = reference_measurement(record), chosen_measurement(record)
    series = {name: samples_of(m) for name, m in (("original", before), ("result", after)) if m is not None}
    series = {name: values for name, values in series.items() if values}
    if not series:
        return
    limit = limit_named(record, "ms")
    picture = plots.distribution(series, budget_ms=None if limit is None else limit["limit"])
    caption = "Raw samples, fresh session in every trial; original and result measured in turns."
    if after is None:
        caption = "Raw samples, fresh session in every trial."
    yield from section("Latency distribution", picture, caption)


def _budget(record: Record) -> Iterator[str]:
    rows = [
        (
            words.LIMIT_NAMES.get(e["name"], e["name"]),
            words.limit_amount(e, "limit"),
            words.limit_amount(e, "value"),
            "" if e["low"] is None else words.span(e["low"], e["high"]),
            e["verdict"],
        )
        for e in record["budget"]
    ]
    heads = ("limit on", "limit", "found", "95 % interval", "verdict")
    caption = "Latency is held when the upper end of the median's 95 % interval is under the limit."
    yield from section("Budget", table(heads, rows, mark=4), caption)


def _files(record: Record) -> Iterator[str]:
    rows = []
    for a in record["result"]["artifacts"] if record["result"] is not None else ():
        m = measured_of(record, a)
        kind = f"{a['format']} {a['precision']}"
        latency = words.milliseconds(None if m is None else m["p50_ms"])
        which = "for the budget" if a.get("chosen") else ""
        row = (a["path"], kind, words.size(a["size_bytes"]), words.metric(a["metric"]), latency, which)
        rows.append((*row, a["sha256"][:12]))
    heads = ("file", "kind", "size", "metric", "latency (p50)", "", "sha256")
    yield from section("Files", table(heads, rows))


def _checks(record: Record) -> Iterator[str]:
    rows = [
        (
            c["name"],
            c["subject"],
            c["status"],
            words.check_value(c, "value"),
            words.check_value(c, "limit"),
            c["detail"],
        )
        for c in record["checks"]
    ]
    heads = ("check", "of", "status", "value", "limit", "detail")
    yield from section("Checks", table(heads, rows, mark=2))


def _inputs(record: Record) -> Iterator[str]:
    view = (record["plan"] or {}).get("inputs")
    if view is not None and (view["nats"] or view["block_nats"]):
        caption = f"After preprocessing, the network is handed {view['text']}."
        yield from section("What of the input is kept", saliency(view), caption)


def _widths(record: Record) -> Iterator[str]:
    plan = record["plan"]
    if plan is None or not plan["widths"]:
        return
    changed = any(w["before"] != w["after"] for w in plan["widths"])
    levers = words.levers(record)
    caption = "Output channels of each layer." if changed else "Every layer is as wide as it was."
    if levers:
        caption = f"{caption} {'; '.join(levers)}."
    elif not changed:
        caption = "Nothing was pruned: every layer is as it was."
    yield from section("Widths before and after", plots.widths(plan["widths"]), caption)


def _decision(record: Record) -> Iterator[str]:
    plan = record["plan"]
    if plan is None:
        return
    rows = [
        (
            f"{words.contender(c)} {words.precision(c)}",
            "" if c["estimate_ms"] is None else words.milliseconds(c["estimate_ms"]),
            f"{c['damage']:.3g}",
            f"{100 * c['kept_ratio']:.0f} %",
            "chosen" if c["chosen"] else "",
            c["note"],
        )
        for c in plan["candidates"]
    ]
    heads = ("candidate", "estimated latency", "damage", "parameters kept", "", "note")
    yield from section("Ways considered", table(heads, rows), "Estimates are predictions, not measurements.")
    rounds = [
        (
            str(r["round"]),
            "" if r["estimate_ms"] is None else words.milliseconds(r["estimate_ms"]),
            words.milliseconds(r["measured_ms"]),
            r["decision"],
        )
        for r in record["rounds"]
    ]
    shown = table(("round", "estimated", "measured", "decision"), rounds)
    yield from section("Planning rounds, each measured on the target", shown)


def _training(record: Record) -> Iterator[str]:
    training = record["training"]
    if training is None:
        return
    rows = [
        (
            f"{e['epoch']}{' (best)' if e['epoch'] == training['best_epoch'] else ''}",
            f"{e['loss']:.4f}",
            f"{e['metric']:.2f}",
            f"{e['lr']:.4g}",
            words.seconds(e["seconds"]),
        )
        for e in training["epochs"]
    ]
    yield from section("Fine-tuning", table(("epoch", "loss", "metric", "learning rate", "time"), rows))


def _storage(record: Record) -> Iterator[str]:
    found = record.get("storage")
    if not found:
        return
    files = table(words.STORED_HEADS, words.stored_files(record))
    scores = words.metric(found["metric_before"]), words.metric(found["metric_after"])
    caption = f"{words.stored(record)}; metric before {scores[0]}, after {scores[1]}"
    layers = table(words.LAYER_HEADS, words.stored_layers(record))
    below = f"{caption}; the layers are those of the first file" if files else caption
    yield from section("Storage", files + layers or "<p>No file to be packed.</p>", below)


def _measurements(record: Record) -> Iterator[str]:
    rows = [
        (
            which,
            _kind(m),
            words.interval(m),
            words.milliseconds(m["p90_ms"]),
            words.milliseconds(m["cpu_p50_ms"]),
            f"{len(m['samples_ms'])} x {max(map(len, m['samples_ms']), default=0)}",
        )
        for which, m in all_measurements(record)
    ]
    heads = ("what", "run by", "p50", "p90", "CPU time p50", "trials x runs")
    yield from section("Measurements", table(heads, rows))
