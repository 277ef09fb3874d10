"""Several cases in one table: for the terminal and as Markdown."""

from __future__ import annotations

from toolchain.report import words
from toolchain.report.front_record import DONE, WAITING, budget_text, latency_text, notes, tally, word
from toolchain.report.markdown_text import section
from toolchain.report.record import Record
from toolchain.report.summary import table

HEADS = ("case", "budget", "latency (p50)", "faster", "metric", "by", "file", "parameters", "MACs", "verdict")
SHORT = ("case", "budget", "latency (p50)", "faster", "metric", "by", "file", "verdict")


def rows(record: Record) -> list[tuple[str, ...]]:
    """The originals, one for each target, then the cases; cells as `HEADS`."""
    found: list[tuple[str, ...]] = []
    for entry in record["originals"]:
        on = f"original on {entry['target']}"
        found.append((on, "", latency_text(entry), "", *_amounts(entry), ""))
    for case in record["cases"]:
        faster = "" if case["faster"] is None else f"{case['faster']:.2f}x"
        known = case["cost"] is not None
        middle = (latency_text(case), faster, *_amounts(case)) if known else ("",) * 7
        found.append((case["name"], budget_text(case), *middle, word(case)))
    return found


def _amounts(entry: Record) -> tuple[str, ...]:
    """Metric, runtime and precision, file, parameters, MACs."""
    cost = entry["cost"]
    by = "" if entry["runtime"] is None else f"{entry['runtime']} {entry['precision']}"
    size = "" if entry["file"] is None else words.size(entry["file"]["size_bytes"])
    return words.metric(entry["metric"]), by, size, words.count(cost["params"]), words.count(cost["macs"])


def title(record: Record) -> str:
    """The network and its targets."""
    targets = dict.fromkeys(case["target"] for case in record["cases"])
    return f"{record['model']['name']} on {', '.join(targets)}"


def render_front_summary(record: Record, *, out: str) -> str:
    """Plain text: the tally first, then a line for each case; `out` is where the folders are."""
    shown = [[row[HEADS.index(name)] for name in SHORT] for row in (HEADS, *rows(record))]
    lines = [f"{len(record['cases'])} CASES: {tally(record)}  {title(record)}", "", *table(shown), ""]
    lines.append(f"all in {out} (front.html shows the picture, each case's own report.html the proof)")
    planned = [case for case in record["cases"] if record["kind"] == "plan" and case["status"] == DONE]
    for case in planned[:1]:
        apply = f"--target {case['target']} --apply {out}/{case['plan']}"
        lines.append(f"carry one out with, for example: edgefit plan MODEL {apply}")
    lines += [f"note: {note}" for note in notes(record)]
    return "\n".join(lines) + "\n"


def render_front_markdown(record: Record) -> str:
    """The same as Markdown."""
    blocks = [f"# {title(record)}: {tally(record)}"]
    said = [f"- {note}" for note in notes(record)]
    if said:
        blocks.append("\n".join(said))
    blocks.append("\n".join(section("Cases", HEADS, rows(record))))
    blocks.append(f"Every case's folder holds its own report. {times(record)}")
    return "\n\n".join(blocks) + "\n"


def times(record: Record) -> str:
    """How long it took, and how much of that served all cases."""
    shared = sum(record["timings"].values())
    ran = [case for case in record["cases"] if case["status"] != WAITING]
    own = "".join(f", {case['name']} {words.seconds(case['seconds'])}" for case in ran)
    made = f"Made by {record['tool']['name']} {record['tool']['version']}, {record['created']}"
    return f"Time: {words.seconds(shared)} for all cases together{own}. {made}."
