"""Numbers and verdicts as people read them. What was not measured says so; nothing is filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

NOT_MEASURED: Final = "not measured"
HEADLINES: Final = {
    "held": "BUDGET HELD",
    "over": "OVER BUDGET",
    "inconclusive": "INCONCLUSIVE",
    "not measured": "NOT MEASURED",
}
LIMIT_NAMES: Final = {
    "ms": "latency (p50)",
    "mb": "file size",
    "macs": "MACs",
    "params": "parameters",
    "neurons": "neurons",
    "max_drop": "metric drop",
}


def milliseconds(value: float | None) -> str:
    """Three significant digits at least, with the unit: `0.312 ms`."""
    return NOT_MEASURED if value is None else f"{value:.{_digits(value)}f} ms"


def span(low_ms: float, high_ms: float) -> str:
    """The ends of an interval, without the unit: `0.308-0.317`."""
    digits = _digits(high_ms)
    return f"{low_ms:.{digits}f}-{high_ms:.{digits}f}"


def _digits(value_ms: float) -> int:
    """Digits behind the point that show three significant ones."""
    return next((digits for digits, least in ((1, 100), (2, 10), (3, 0.1)) if value_ms >= least), 4)


def count(value: float | None) -> str:
    """`40.8 M`, `1.2 k`, `512`."""
    if value is None:
        return NOT_MEASURED
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def size(size_bytes: float | None) -> str:
    """Decimal bytes: `1.1 MB`."""
    if size_bytes is None:
        return "unknown"
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= divisor:
            return f"{size_bytes / divisor:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def metric(score: Mapping[str, Any] | None) -> str:
    """`87.74 top1`, or that it was not measured."""
    return NOT_MEASURED if score is None else f"{score['value']:.2f} {score['name']}"


def seconds(value: float) -> str:
    """`4.2 s`, `3 min 20 s`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def factor(before: float | None, after: float | None) -> str:
    """`2.1x faster`-style ratio as `2.1x`; empty when either is unknown or zero."""
    return f"{before / after:.2f}x" if before and after else ""


def interval(measurement: Mapping[str, Any] | None) -> str:
    """`0.312 ms (95 %: 0.308-0.317)`."""
    if measurement is None:
        return NOT_MEASURED
    ends = span(measurement["p50_low_ms"], measurement["p50_high_ms"])
    return f"{milliseconds(measurement['p50_ms'])} (95 %: {ends})"


def limit_amount(entry: Mapping[str, Any], key: str) -> str:
    """The limit's or the found value's amount with its unit."""
    value = entry[key]
    if value is None:
        return NOT_MEASURED
    if entry["name"] == "ms":
        return milliseconds(value)
    if entry["name"] == "mb":
        return size(value * 1e6)
    if entry["name"] == "max_drop":
        return f"{value:.2f} points"
    return count(value)


def check_value(check: Mapping[str, Any], key: str) -> str:
    """A check's value or limit: short, with its unit."""
    value = check[key]
    if value is None:
        return ""
    unit = f" {check['unit']}" if check["unit"] else ""
    return f"{value:.3g}{unit}"


def headline(record: Mapping[str, Any]) -> str:
    """The verdict in capitals, or what kind of run it was when there was no budget to judge."""
    if record["kind"] == "bench":
        return "MEASURED"
    if record["kind"] == "plan":
        return "PLANNED"
    if not record["budget"]:
        return "WEIGHTS STORED" if record.get("storage") else "PLAN CARRIED OUT"
    return HEADLINES[record["verdict"]]


def failures(record: Mapping[str, Any]) -> str:
    """`2 CHECKS FAILED`; empty when none did. Belongs beside every headline."""
    count = failed(record)
    return f"{count} CHECK{'S' * (count > 1)} FAILED" if count else ""


def dropped(record: Mapping[str, Any]) -> str:
    """`2 residual blocks left out whole: layer1.0, layer1.2`; empty when none was."""
    names = (record["plan"] or {}).get("dropped") or ()
    blocks = "residual block" if len(names) == 1 else "residual blocks"
    return f"{len(names)} {blocks} left out whole: {', '.join(names)}" if names else ""


def levers(record: Mapping[str, Any]) -> list[str]:
    """What was done besides narrowing layers: a smaller input, blocks left out, layers kept in float."""
    return [text for text in (resized(record), viewed(record), dropped(record), in_float(record)) if text]


def in_float(record: Mapping[str, Any]) -> str:
    """`2 layers of the int8 file stay in float: conv1, fc`; empty when none does."""
    names = (record["plan"] or {}).get("in_float") or ()
    some = "layer of the int8 file stays" if len(names) == 1 else "layers of the int8 file stay"
    return f"{len(names)} {some} in float: {', '.join(names)}" if names else ""


def resized(record: Mapping[str, Any]) -> str:
    """`input 224 x 224 -> 160 x 160`; empty when the input keeps its size."""
    sizes = (record["plan"] or {}).get("resize")
    return f"input {image(sizes[0])} -> {image(sizes[1])}" if sizes else ""


def viewed(record: Mapping[str, Any]) -> str:
    """`of the input: channels 0, 2 of 3; rows 4-27 and ...`; empty when all of it is handed over."""
    view = (record["plan"] or {}).get("inputs")
    return f"of the input: {view['text']}" if view else ""


def image(size: Sequence[int]) -> str:
    """`224 x 224`: height and width."""
    return f"{size[0]} x {size[1]}"


def stored(record: Mapping[str, Any]) -> str:
    """How weights are stored: `palette:5, 90.0 % of the weights zero`; empty when they are not."""
    found = record.get("storage")
    if not found:
        return ""
    return f"{found['form']}, {100 * found['zeros']:.1f} % of the weights zero"


def stored_files(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of every packed file: name, size, model file, original, how much smaller than either."""
    return [
        (
            file["path"],
            size(file["size_bytes"]),
            size(file["file_bytes"]),
            factor(file["file_bytes"], file["size_bytes"]),
            size(file["original_bytes"]),
            factor(file["original_bytes"], file["size_bytes"]),
        )
        for file in (record.get("storage") or {}).get("files", ())
    ]


STORED_HEADS: Final = ("packed file", "size", "unpacked", "smaller", "original", "smaller")


def stored_layers(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of every layer of the first packed file: weights, distinct values, zeros, bytes and bits a weight."""
    files = (record.get("storage") or {}).get("files", ())
    return [
        (
            row["layer"].removesuffix(".weight"),
            f"{row['weights']:,}",
            f"{row['values']:,}",
            f"{100 * row['zeros'] / row['weights']:.1f} %",
            f"{row['bytes']:,}",
            f"{8 * row['bytes'] / row['weights']:.2f}",
        )
        for row in (files[0]["layers"] if files else ())
    ]


LAYER_HEADS: Final = ("layer", "weights", "values", "zero", "bytes", "bits a weight")


def contender(candidate: Mapping[str, Any]) -> str:
    """`onnxruntime`, or `onnxruntime at 160 x 160` for a smaller input."""
    at = candidate.get("resize")
    return f"{candidate['runtime']} at {image(at)}" if at else str(candidate["runtime"])


def precision(candidate: Mapping[str, Any]) -> str:
    """`int8`, or `int8, 2 layers in float`."""
    count = len(candidate.get("in_float") or ())
    return f"int8, {count} layer{'s' * (count > 1)} in float" if count else str(candidate["precision"])


def failed(record: Mapping[str, Any]) -> int:
    """How many checks failed."""
    return sum(check["status"] == "fail" for check in record["checks"])
