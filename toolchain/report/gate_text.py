"""A gate's record for the terminal and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from toolchain.report import words
from toolchain.report.markdown_text import section
from toolchain.report.summary import table

Record = Mapping[str, Any]
HEADLINES: Final = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE"}
HEADS: Final = ("gate", "found", "limit", "verdict", "")
_DIGITS: Final = {"x": 3, "operators": 0}


def title(record: Record) -> str:
    """What was compared, and where."""
    conditions = record["candidate"]["measurement"]["conditions"]
    threads = f"{conditions['threads']} thread{'s' if conditions['threads'] > 1 else ''}"
    sides = f"{record['candidate']['label']} against {record['baseline']['label']}"
    return f"{sides} on {record['target']} ({conditions['runtime']}, {threads})"


def rows(record: Record) -> list[tuple[str, ...]]:
    """One line a gate, as `HEADS`."""
    return [(c["name"], amount(c), limit(c), c["verdict"], c["detail"] or "") for c in record["checks"]]


def amount(check: Record) -> str:
    """What was found, with its interval where it has one."""
    found = _with_unit(check["value"], check["unit"])
    if check["low"] is None:
        return found
    if check["high"] is None:
        return f"{found} (too few trials for an interval)"
    low, high = (_number(check[end], check["unit"]) for end in ("low", "high"))
    return f"{found} (95 %: {low}-{high})"


def limit(check: Record) -> str:
    """The limit with its unit."""
    return _with_unit(check["limit"], check["unit"])


def _with_unit(value: float, unit: str) -> str:
    if unit == "ms":
        return words.milliseconds(value)
    return f"{_number(value, unit)}{'' if unit == 'x' else ' '}{unit}"


def _number(value: float, unit: str) -> str:
    if unit == "ms":
        return words.milliseconds(value).removesuffix(" ms")
    return f"{value:.{_DIGITS.get(unit, 2)}f}"


def basis(record: Record) -> str:
    """What the ratio rests on, in a sentence."""
    if not record["courses"]:
        return "against stored figures of equal conditions, not measured in turns"
    pairs = " and ".join(str(course["looks"][-1]["pairs"]) for course in record["courses"])
    clock = "CPU time" if record["clock"] == "cpu" else "wall time"
    wall = record["wall_ratio"]["value"]
    beside = f"; by wall time {wall:.3f}x" if record["clock"] == "cpu" else ""
    return (
        f"ratio of p50s by {clock}{beside}; {pairs} pairs in turns, each in fresh sessions;"
        f" {words.seconds(record['seconds'])}"
    )


def _latencies(record: Record) -> Iterator[tuple[str, ...]]:
    yield ("", "p50 (wall)", "95 % interval", "p90", "file")
    for name in ("baseline", "candidate"):
        side = record[name]
        m = side["measurement"]
        yield (
            name,
            words.milliseconds(m["p50_ms"]),
            words.span(m["p50_low_ms"], m["p50_high_ms"]),
            words.milliseconds(m["p90_ms"]),
            words.size(side["size_bytes"]),
        )


def gate_text(record: Record) -> str:
    """Plain text: the verdict, the gates, the latencies, what it rests on."""
    lines = [f"{HEADLINES[record['verdict']]}  {title(record)}", ""]
    lines += table([HEADS, *rows(record)])
    lines += ["", *table(list(_latencies(record))), "", basis(record)]
    lines += [f"note: {note}" for note in record["notes"]]
    return "\n".join(lines) + "\n"


def gate_markdown(record: Record) -> str:
    """The same for a comment on a pull request."""
    heads, *latencies = _latencies(record)
    blocks = [f"# edgefit gate: {HEADLINES[record['verdict']]}", title(record)]
    blocks.append("\n".join(section("Gates", HEADS, rows(record))))
    blocks.append("\n".join(section("Latency", heads, latencies)))
    blocks.append(basis(record) + ".")
    if record["notes"]:
        blocks.append("\n".join(f"- {note}" for note in record["notes"]))
    return "\n\n".join(blocks) + "\n"


def noise_text(record: Record) -> str:
    """What the noise is, and what can be seen in how much time."""
    noise = record["noise"]
    clock = "CPU time" if noise["clock"] == "cpu" else "wall time"
    lines = [
        f"NOISE  {100 * noise['ratio']:.2f} % on {record['target']}: a block of {noise['model']} against"
        f" itself is off by that ({clock}, {noise['blocks']} blocks of {words.seconds(noise['seconds'])})",
        f"a gate's threshold is at least 3 times that here: {100 * record['least_threshold']:.2f} %",
        "",
        "slow-downs expected to be called in 95 of 100 runs, confirmation included",
    ]
    shown = [("time", "above the threshold by")]
    for entry in record["visible"]:
        above = "nothing" if entry["above"] is None else f"{100 * entry['above']:.2f} %"
        shown.append((words.seconds(entry["seconds"]), above))
    lines += [*table(shown), "", f"kept in {record['written']}"]
    return "\n".join(lines) + "\n"
