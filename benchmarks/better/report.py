"""The comparison as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import mean
from typing import Any, Final

OURS: Final = "edgefit"
FASTER: Final = 0.98
EQUAL: Final = 1.1
"""A cut that takes from `FASTER` to this of Edgefit's time is about as fast: channels go one by one."""
SIDE, GAP = 260, 64
Record = Mapping[str, Any]


def scores(case: Record) -> dict[str, list[float]]:
    """Top-1 of every contestant that was fine-tuned, one number a seed."""
    found: dict[str, list[float]] = {}
    for entry in sorted(case["tuned"], key=lambda e: e["seed"]):
        found.setdefault(entry["who"], []).append(entry["top1"])
    return found


def best_rival(case: Record) -> str | None:
    """The variant with the highest mean top-1 among those run with most seeds."""
    equal = compared(case)
    known = {who: tops for who, tops in scores(case).items() if who in equal}
    if not known:
        return None
    most = max(len(tops) for tops in known.values())
    return max((w for w in known if len(known[w]) == most), key=lambda w: mean(known[w]))


def as_fast(match: Record) -> bool:
    """Whether a variant got to Edgefit's latency."""
    return match["ratio"] is not None and match["ratio"] <= EQUAL


def compared(case: Record) -> list[str]:
    """The variants that get as fast; where none is about equal, the fastest of the slower ones too."""
    ratios = {who: match["ratio"] for who, match in case["match"].items() if match["ratio"] is not None}
    equal = [who for who in ratios if as_fast(case["match"][who])]
    if any(ratios[who] >= FASTER for who in equal):
        return equal
    slower = min((ratio for ratio in ratios.values() if ratio > EQUAL), default=None)
    return equal + [who for who in ratios if ratios[who] == slower]


def markdown(record: Record) -> str:
    """One row a network and speed-up, then every variant."""
    setting = record["setting"]
    lines = [
        "# Edgefit and torch-pruning 1.6.1 at equal measured latency",
        "",
        "CIFAR-10, ONNX Runtime in float, one thread, batch 1. Edgefit's network holds the budget (the"
        " measured latency of the network as it is, over the speed-up); each torch-pruning variant is cut as"
        " little as makes it as slow, measured in turns; where none is about equal, the next"
        " slower one is compared too. Then"
        " the same fine-tuning for all:"
        f" {setting['epochs']} epoch{'s' * (setting['epochs'] > 1)} of {setting['train'] * 10:,} training"
        f" images in batches of {setting['batch_size']}, highest rate {setting['lr']:g},"
        " the network as it is as teacher, the same images in the same order."
        " Top-1 in percent on 5,000 validation images, mean of the seeds.",
        "",
        "| network | asked | Edgefit ms | speed-up | Edgefit | best torch-pruning | its latency | variant |"
        " difference | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, speedup, case) for name, speedup, case in _cases(record)]
    lines += ["", "## Every variant", ""]
    for name, entry in record["networks"].items():
        lines += [_origin(name, entry), ""]
        lines += ["| asked | who | latency | top-1, one number a seed |", "|---|---|---|---|"]
        for speedup, case in sorted(entry["cases"].items(), key=lambda item: float(item[0])):
            lines += [f"| {speedup}x | {row}" for row in _variants(case)]
        lines.append("")
    return "\n".join(lines)


def _cases(record: Record) -> Iterator[tuple[str, str, Record]]:
    for name, entry in record["networks"].items():
        for speedup in sorted(entry["cases"], key=float):
            yield name, speedup, entry["cases"][speedup]


def _row(name: str, speedup: str, case: Record) -> str:
    plan, known, rival = case["plan"], scores(case), best_rival(case)
    if plan is None:
        return f"| {name} | {speedup}x | not run |" + " |" * 7
    cells = [f"{plan['p50_ms']:.4f}", f"{plan['whole_ms'] / plan['p50_ms']:.2f}x"]
    ours = known.get(OURS)
    cells.append("not run" if ours is None else f"{mean(ours):.2f}")
    if rival is None:
        return f"| {name} | {speedup}x | {' | '.join(cells)} | not run |" + " |" * 4
    difference = "" if ours is None else f"{mean(ours) - mean(known[rival]):+.2f}"
    equal = compared(case)
    of = f"{rival}, best of {sum(who in known for who in equal)} run ({len(equal)} get as fast)"
    if not as_fast(case["match"][rival]):
        of = f"{rival}, slower than Edgefit's"
    cells += [f"{mean(known[rival]):.2f}", _ratio(case["match"][rival]), of, difference]
    seeds = f"{len(ours or ())} and {len(known[rival])}"
    return f"| {name} | {speedup}x | {' | '.join(cells)} | {seeds} |"


def _ratio(match: Record) -> str:
    if match["ratio"] is None:
        return "not reached"
    return f"{match['ratio']:.3f} of Edgefit's" + ("" if as_fast(match) else ", no faster cut found")


def _origin(name: str, entry: Record) -> str:
    trained = entry["trained"]
    text = f"**{name}**: {trained['top1']:.2f} % before"
    if trained["epochs"]:
        text += f", epochs of training: {trained['epochs']}"
    if "failure" in entry:
        text += (
            f". torch-pruning fails on it (`{entry['failure']}`); with the inner widths of the"
            " residual blocks alone it works"
        )
    return text + "."


def _variants(case: Record) -> Iterator[str]:
    known, rivals = scores(case), compared(case)
    for who in (OURS, *case["match"]):
        missing = "not run" if who == OURS or who in rivals else "not compared"
        tops = ", ".join(f"{t:.2f}" for t in known.get(who, ())) or missing
        latency = "1" if who == OURS else _ratio(case["match"][who])
        yield f"{who} | {latency} | {tops} |"


def picture(record: Record) -> str:
    """Top-1 over the speed-up, a panel a network: a line for Edgefit, a dot for each variant."""
    networks = [n for n, e in record["networks"].items() if any(c["tuned"] for c in e["cases"].values())]
    width, height = max(len(networks), 1) * (SIDE + GAP) + GAP, SIDE + 2 * GAP
    body = "".join(
        part
        for column, name in enumerate(networks)
        for part in _panel(GAP + column * (SIDE + GAP), name, record["networks"][name])
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        ' font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>{body}</svg>\n'
    )


def _panel(left: int, name: str, entry: Record) -> Iterator[str]:
    cases = {float(s): scores(c) for s, c in sorted(entry["cases"].items(), key=lambda i: float(i[0]))}
    tops = [t for case in cases.values() for values in case.values() for t in values]
    whole = entry["trained"]["top1"]
    low, high = math.floor(min(tops) / 5) * 5, math.ceil(max(*tops, whole) / 5) * 5
    bottom = GAP + SIDE

    def x(speedup: float) -> float:
        return left + SIDE * (0.08 + 0.84 * math.log2(speedup) / 3)

    def y(top: float) -> float:
        return bottom - SIDE * (top - low) / (high - low)

    yield f'<rect x="{left}" y="{GAP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>'
    yield f'<text x="{left}" y="{GAP - 8}">{name}: top-1 (%) over the speed-up asked</text>'
    for top in range(low, high + 1, 5):
        yield f'<text x="{left - 6}" y="{y(top) + 4:.1f}" text-anchor="end">{top}</text>'
    for speedup, case in cases.items():
        middle = f'x="{x(speedup):.1f}" y="{bottom + 16}" text-anchor="middle"'
        yield f"<text {middle}>{speedup:g}x</text>"
        for who, values in case.items():
            if who != OURS:
                yield _dot(x(speedup), y(mean(values)), "#b44", 3)
    line = [(x(s), y(mean(c[OURS]))) for s, c in cases.items() if OURS in c]
    yield f'<path d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in [(x(1), y(whole)), *line])}"'
    yield ' fill="none" stroke="#0b62a4"/>'
    for a, b in line:
        yield _dot(a, b, "#0b62a4", 4)
    yield f'<text x="{left}" y="{bottom + 36}">line: Edgefit; dots: torch-pruning</text>'


def _dot(x: float, y: float, colour: str, radius: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.7"/>'
