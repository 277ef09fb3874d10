"""Several cases as one page: a picture for each target, the table beneath."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from toolchain.report import plots
from toolchain.report.front_record import budget_text, notes, tally
from toolchain.report.front_text import HEADS, rows, times, title
from toolchain.report.markup import document, section, table
from toolchain.report.record import Record


def render_front_page(record: Record) -> str:
    """The whole page."""
    name = title(record)
    badge = {0: "held", None: "not"}.get(record["exit_code"], "over")
    said = "".join(f"<li>{escape(note)}</li>" for note in notes(record))
    targets = dict.fromkeys(case["target"] for case in record["cases"])
    body = "\n".join(
        (
            f'<header><span class="badge {badge}">{len(record["cases"])} cases</span><h1>{escape(name)}</h1>'
            f'<p class="sub">{escape(tally(record))}</p></header>',
            *(part for target in targets for part in _picture(record, target)),
            *section("Cases", table(HEADS, rows(record), mark=len(HEADS) - 1), times(record)),
            *section("Worth knowing", f"<ul>{said}</ul>" if said else ""),
        )
    )
    return document(name, body)


def _picture(record: Record, target: str) -> Iterator[str]:
    """Metric (else parameters) against latency on one target; nothing where no latency is known."""
    cases = [case for case in record["cases"] if case["target"] == target and _known(case)]
    originals = [entry for entry in record["originals"] if entry["target"] == target and _known(entry)]
    judged = [entry for entry in (*originals, *cases) if entry["metric"] is not None]
    by_metric = len(judged) > len(originals) > 0
    shown = judged if by_metric else [*originals, *cases]
    if not cases:
        return
    y_title = judged[0]["metric"]["name"] if by_metric else "parameters (k)"
    points = [_point(entry, by_metric=by_metric) for entry in shown]
    budgets = [
        case["budget"]["ms"]
        for case in record["cases"]
        if case["target"] == target and "ms" in case["budget"]
    ]
    measured = [entry for entry in shown if entry["latency"] is not None]
    picture = plots.scatter(
        points,
        budgets_ms=sorted(set(budgets)),
        y_title=y_title,
        x_title="latency p50 (ms)" if measured else "predicted latency (ms)",
    )
    held = "budget held" if record["kind"] == "compress" and measured else "planned for the budget"
    caption = f"Grey: as handed in. Blue: {held}. Violet: not held."
    if measured:
        caption += " Bars: 95 % intervals."
    if len(measured) < len(shown):
        caption += " Hollow and dashed: predicted, not verified on the device; bars: 90 % intervals."
    what = "Accuracy" if by_metric else "Parameters"
    yield from section(f"{what} against latency on {target}", picture, caption)


def _known(entry: Record) -> bool:
    """Whether the entry can be drawn."""
    return entry["cost"] is not None and (entry["latency"] or entry["predicted"]) is not None


def _point(entry: Record, *, by_metric: bool) -> plots.Point:
    """The entry where it was measured, or, drawn as such, where it is predicted."""
    if entry["latency"] is not None:
        ms, low, high = (entry["latency"][name] for name in ("p50_ms", "p50_low_ms", "p50_high_ms"))
        style = ""
    else:
        ms, low, high = (entry["predicted"][name] for name in ("ms", "low_ms", "high_ms"))
        style = " predicted"
    case = "name" in entry
    limits = {name: limit for name, limit in entry["budget"].items() if name != "max_drop"} if case else {}
    return plots.Point(
        label=budget_text({"budget": limits}) if case else "original",
        ms=ms,
        low_ms=ms if low is None else low,
        high_ms=ms if high is None else high,
        metric=entry["metric"]["value"] if by_metric else entry["cost"]["params"] / 1e3,
        style=(("after" if entry["exit_code"] == 0 else "other") if case else "before") + style,
    )
