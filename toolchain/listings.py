"""`inspect`, `targets` and `doctor` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolchain.report import words
from toolchain.report.operators import fallbacks
from toolchain.report.summary import table

Found = Mapping[str, Any]
SHOWN, LINE = 3, 80
"""Members of a group that the listing names at most, and the characters they may take."""


def inspection_text(found: Found) -> str:
    """The network, its groups of channels, and what is frozen and why."""
    return "\n".join(_inspection(found)) + "\n"


def _inspection(found: Found) -> Iterator[str]:
    cost = found["cost"]
    yield f"{found['name']}  {found['fingerprint'][:16]}"
    for kind in ("inputs", "outputs"):
        for spec in found[kind]:
            shape = " x ".join("batch" if n is None else str(n) for n in spec["shape"])
            yield f"{kind[:-1]} {spec['name']}: {shape}, {spec['dtype']}"
    yield (
        f"{words.count(cost['macs'])} MACs, {words.count(cost['params'])} parameters,"
        f" {words.count(cost['neurons'])} neurons, {words.size(cost['weight_bytes'])} of weights"
    )
    groups = found["groups"]
    yield ""
    yield f"{len(groups)} groups of channels that can be removed one by one"
    rows = [("group", "channels", "cuts")]
    for group in groups:
        star = " *" if group["note"] else ""
        rows.append((group["name"] + star, str(group["size"]), _members(group["members"])))
    yield from table(rows) if groups else ()
    noted = [(group["name"], group["note"]) for group in groups if group["note"]]
    if noted:
        yield ""
        yield "* operators compute over these groups: after a cut, over the channels that stay"
        yield from table([("group", "what changes"), *noted])
    if found["blocks"]:
        yield ""
        yield f"residual blocks that can be left out whole: {', '.join(found['blocks'])}"
    if found["unknown"]:
        yield ""
        yield "operators without a rule, which keep the channels that reach them from being removed"
        yield from table([("operator", "calls"), *((name, str(n)) for name, n in found["unknown"].items())])
    yield ""
    yield f"{len(found['frozen'])} dimensions stay as they are"
    reasons = [(f"{f['parameter']}[{f['dim']}]", str(f["count"]), f["reason"]) for f in found["frozen"]]
    yield from table([("dimension", "channels", "why"), *reasons]) if reasons else ()
    if found["picture"]:
        yield ""
        yield f"picture: {found['picture']}"


def _members(members: Sequence[Mapping[str, Any]]) -> str:
    """The first members that fit on a line, one at least, and how many more there are."""
    names = [f"{m['parameter']}[{m['dim']}]" for m in members]
    shown = next((n for n in range(SHOWN, 1, -1) if len(", ".join(names[:n])) <= LINE), 1)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def calibration_text(found: Found) -> str:
    """What the measurements made of the model, and how it fits them now."""
    return "\n".join(_calibration(found)) + "\n"


def _calibration(found: Found) -> Iterator[str]:
    target, file = found["target"], found["written"]
    yield (
        f"CALIBRATED  {target['name']}:{target['variant']}, {found['engine']}, {found['precision']}: kernels"
        f" take {found['scale']:.3g} times as long, overhead {words.milliseconds(found['was_ms'])} ->"
        f" {words.milliseconds(found['overhead_ms'])}"
    )
    yield ""
    rows: list[tuple[str, ...]] = [("measured by you", "published model", "adapted model")]
    for fit in found["fits"]:
        rows.append(tuple(words.milliseconds(fit[k]) for k in ("ms", "published_ms", "adapted_ms")))
    yield from table(rows)
    yield ""
    yield f"{file}: edgefit predict MODEL --target {target['name']} --calibration {file}"


def bench_text(found: Found) -> str:
    """What was measured on a device: one line a file, and under which conditions."""
    return "\n".join(_bench(found)) + "\n"


def _bench(found: Found) -> Iterator[str]:
    settings = found["settings"]
    threads = settings["threads"]
    yield (
        f"{found['device']}, tier {settings['tier']['name']}, {threads} thread{'s' if threads > 1 else ''},"
        f" measured by {found['driver']}"
    )
    yield ""
    if any(model["instructions"] for model in found["models"]):
        yield from table([_COUNTED, *(_counted_row(model) for model in found["models"])])
        yield "emulated: no time was measured"
        return
    rows: list[tuple[str, ...]] = [
        ("file", "runtime", "precision", "p50 (95 %)", "p90 (95 %)", "p99", "min", "load", "first", "runs")
    ]
    rows += [_bench_row(model) for model in found["models"]]
    yield from table(rows)
    for model in found["models"]:
        yield from (f"warning: {model['file']}: {line}" for line in _doubts(model["timing"]))
    yield from _heat(found["before"], found["after"] or {})
    for model in found["models"]:
        if model["placement"] is not None:
            yield f"{model['file']}: {fallbacks(model['placement'])}"
    for model in found["models"]:
        if settings["tier"]["windows"] > 1:
            yield ""
            yield from _course(model)
    yield ""
    yield from _state(found["before"])


def _bench_row(model: Found) -> tuple[str, ...]:
    timing = model["timing"]
    spans = [
        f"{words.milliseconds(t['value'])} ({words.span(t['low'], t['high'])})"
        for t in (timing["p50"], timing["p90"])
    ]
    tail = "-" if timing["p99_ms"] is None else words.milliseconds(timing["p99_ms"])
    rest = (words.milliseconds(timing[key]) for key in ("min_ms", "load_ms", "first_ms"))
    version = f"{model['runtime']} {model['runtime_version'] or ''}".strip()
    return model["file"], version, model["precision"] or "as it is", *spans, tail, *rest, str(timing["runs"])


_COUNTED = ("file", "runtime", "instructions", "least-most", "runs", "largest difference", "equal outputs")


def _counted_row(model: Found) -> tuple[str, ...]:
    """Instructions of an inference, and how outputs compare with those of this machine."""
    counts, parity = model["instructions"], model["parity"] or {}
    relative, share = parity.get("max_relative"), parity.get("equal_share")
    return (
        model["file"],
        f"{model['runtime']} {model['runtime_version'] or ''}".strip(),
        words.count(counts["min"]),
        f"{counts['min']}-{counts['max']}",
        str(counts["runs"]),
        "not compared" if relative is None else f"{relative:.1e}",
        "not compared" if share is None else f"{100 * share:.2f} %",
    )


def _doubts(timing: Found) -> Iterator[str]:
    """What speaks against the figures."""
    if timing["settled"] is False:
        yield "a warm-up did not settle within 2 %"
    if timing["throttled"]:
        yield f"throttled: {100 * (timing['slowdown'] - 1):.0f} % slower at the end than at the beginning"
    if timing["late"]:
        yield f"{timing['late']} runs missed their cadence"


def _heat(before: Found, after: Found) -> Iterator[str]:
    """Whether the device began to protect itself from its heat; Android alone says so."""
    first, last = before.get("thermal_status"), after.get("thermal_status")
    if first is not None and last is not None and last > first:
        yield f"warning: it became hot: thermal status {first:.0f} before, {last:.0f} after"


def _course(model: Found) -> Iterator[str]:
    """One long session, part by part: of the tier `sustained`, minute by minute."""
    rows: list[tuple[str, ...]] = [(f"{model['file']}: part", "p50", "p90", "celsius", "MHz")]
    for number, window in enumerate(model["timing"]["windows"], start=1):
        times = (words.milliseconds(window[key]) for key in ("p50_ms", "p90_ms"))
        state = ("-" if window[key] is None else f"{window[key]:.0f}" for key in ("celsius", "mhz"))
        rows.append((str(number), *times, *state))
    yield from table(rows)


def _state(before: Found) -> Iterator[str]:
    """The device's state in one line; what could not be read is named, not left out."""
    keys = ("os", "cpu", "governor", "frequency_mhz", "temperatures", "battery_percent", "charging")
    known = [f"{key} {before[key]}" for key in keys if before.get(key) is not None]
    unknown = [key for key in keys if before.get(key) is None]
    load = before.get("load")
    yield ", ".join(known + ([f"load {load[0]:.1f}"] if load else []))
    if unknown:
        yield f"not readable: {', '.join(unknown)}"


def devices_text(found: Found) -> str:
    """Every device that can be reached from here, or what is missing."""
    rows = [("device", "", "state", "")]
    for device in found["devices"]:
        state = f"missing: {device['missing']}" if device["missing"] else "ready"
        rows.append((device["device"], device["summary"], state, device["hint"]))
    seen = {device["device"].partition(":")[0] for device in found["devices"]}
    rows += [(r["form"], r["summary"], "to be named", "") for r in found["routes"] if r["name"] not in seen]
    return "\n".join(table(rows)) + "\n"


def needs_text(found: Found) -> str:
    """What a target needs here, and how to get what is missing."""
    rows = [("needed", "found", "")]
    for need in found["needs"]:
        rows.append((need["name"], need["found"] or "missing", "" if need["found"] else need["hint"]))
    return "\n".join(table(rows)) + "\n"


def bundle_text(found: Found) -> str:
    """What a bundle holds."""
    rows = [("in the bundle", "version", "sha256"), ("edgefit-runner", found["runner"], "")]
    rows += [(entry["file"], entry["version"], entry["sha256"]) for entry in found["libraries"]]
    return (
        "\n".join(table(rows))
        + f"\n{found['written']}: for {found['arch']}; docs/runner.md tells how to use it\n"
    )


SLOWEST = 12
"""How many layers a prediction shows; the JSON has them all."""


def prediction_text(found: Found) -> str:
    """The estimate with its interval, where the time goes, and what the figure rests on."""
    return "\n".join(_prediction(found)) + "\n"


def _prediction(found: Found) -> Iterator[str]:
    target, share = found["target"], f"{100 * found['coverage']:.0f} %"
    threads = f", {found['threads']} threads" if found["threads"] else ""
    asked = f" (asked: {target['asked']})" if target["asked"] != target["variant"] else ""
    yield (
        f"PREDICTED  {words.milliseconds(found['predicted_ms'])}"
        f" ({share}: {words.span(found['low_ms'], found['high_ms'])})"
        f"  {found['model']['name']} on {target['name']}:{target['variant']}{asked}"
    )
    yield f"{found['engine']}, {found['accelerator']}, {found['precision']}{threads}, batch 1"
    yield ""
    yield from table(_slowest(found))
    yield ""
    if found["adapted"]:
        yield f"adapted to your device {found['adapted']}; the errors below are the published device's"
    yield from _evidence(found["evidence"])
    yield from (f"warning: {line}: the interval may not hold" for line in found["outside"])
    if found["others"]:
        yield f"other models of this device: {'; '.join(found['others'])}"
    yield found["status"]


def _slowest(found: Found) -> list[tuple[str, ...]]:
    """The layers that take longest, the others as one line, and what belongs to none."""
    total = found["predicted_ms"]
    layers = sorted(found["layers"], key=lambda layer: -layer["ms"])
    rows: list[tuple[str, ...]] = [("layer", "operator", "predicted", "share")]
    for layer in layers[:SLOWEST]:
        rows.append((layer["layer"], layer["op"], *_part(layer["ms"], total)))
    rest = layers[SLOWEST:]
    if rest:
        rows.append((f"{len(rest)} others", "", *_part(sum(layer["ms"] for layer in rest), total)))
    rows.append(("per inference", "", *_part(found["overhead_ms"], total)))
    return rows


def _part(ms: float, total: float) -> tuple[str, str]:
    return words.milliseconds(ms), f"{100 * ms / total:.1f} %"


def _evidence(evidence: Found) -> Iterator[str]:
    error = evidence["left_out_network"]
    said = (
        "no network could be left out" if error is None else f"{100 * error:.1f} % off on networks left out"
    )
    if evidence["left_out_family"] is not None:
        said += f", {100 * evidence['left_out_family']:.1f} % on families left out"
    yield (
        f"rests on {evidence['rows']} published latencies of {evidence['networks']} networks on"
        f" {', '.join(evidence['devices'])}: {said}"
    )
    for source in evidence["sources"]:
        label = f" ({source['label']})" if source["label"] else ""
        yield f"  {source['url']}, {source['date']}: {source['rows']} rows, {source['statistic']}{label}"


def targets_text(found: Found) -> str:
    """Every target with its runtimes."""
    lines = []
    for target in found["targets"]:
        lines.append(f"{target['name']}: {target['summary']}")
        rows = [("  runtime", "runs", "precisions", "channels in multiples of", "")]
        for runtime in target["runtimes"]:
            precisions, align = ", ".join(runtime["precisions"]), str(runtime["align"])
            state = f"missing: {runtime['install']}" if runtime["install"] else "ready"
            state = state if target["measurable"] else "predicted, not measured"
            rows.append((f"  {runtime['name']}", runtime["format"], precisions, align, state))
        lines += table(rows)
        if target["variants"]:
            lines.append(f"  as {target['name']}:VARIANT, which is {', '.join(target['variants'])}")
    return "\n".join(lines) + "\n"


def doctor_text(found: Found) -> str:
    """Packages, formats and targets, and what to install."""
    return "\n".join(_doctor(found)) + "\n"


def _doctor(found: Found) -> Iterator[str]:
    yield f"edgefit {found['edgefit']}, Python {found['python']}, {found['system']}, {found['cores']} cores"
    yield f"layer timings are kept in {found['cache']} (EDGEFIT_CACHE names another folder)"
    yield ""
    rows = [("package", "version", "")]
    for package in found["packages"]:
        needed = f"pip install 'edgefit[{package['extra']}]'" if package["extra"] else "pip install edgefit"
        rows.append((package["name"], package["version"] or "missing", "" if package["version"] else needed))
    yield from table(rows)
    yield ""
    rows = [("format", "state", "")]
    for form in found["formats"]:
        state = "missing" if form["missing"] else "writes and runs" if form["runs_here"] else "writes"
        rows.append((form["name"], state, form["install"] or form["because"]))
    yield from table(rows)
    yield ""
    yield from targets_text(found).rstrip("\n").split("\n")
