"""How the time of analysis and pruning grows with the network, within families that differ in size alone.

    python -m benchmarks.coverage.growth [--rounds 3] [--max-mb 1500] [--plot-only]

Half of every group is removed; seconds are CPU time of one thread, the least of the rounds, each of them with
an analysis from scratch. Size is nodes of the graph plus output channels of its layers. The exponent is the
slope of a straight line through the logarithms: 1 is linear. Writes growth.json, growth.md and growth.svg
beside this file; networks whose fp32 weights are larger than `--max-mb` are left out and named.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.coverage import zoo
from benchmarks.coverage.oracle import half
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import layers
from toolchain.program.rewrite import apply

HERE = Path(__file__).parent
FAMILIES = {
    "ResNet": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "DenseNet": ("densenet121", "densenet161", "densenet169", "densenet201"),
    "ViT": ("vit_b_32", "vit_b_16", "vit_l_32", "vit_l_16", "vit_h_14"),
}
STEPS = ("analysis_s", "pruning_s")
_SIDE, _EDGE = 420, 46
_COLOURS = ("#2266aa", "#bb5522", "#228855")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-mb", type=float, default=1500.0, help="largest fp32 weights to run")
    parser.add_argument("--plot-only", action="store_true", help="from the results kept, measure nothing")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    kept = HERE / "growth.json"
    record = json.loads(kept.read_text()) if flags.plot_only else measured(flags.rounds, flags.max_mb)
    kept.write_text(json.dumps(record, indent=1) + "\n")
    (HERE / "growth.md").write_text(markdown(record))
    (HERE / "growth.svg").write_text(picture(record["families"]))
    print(markdown(record))


def measured(rounds: int, max_mb: float) -> dict[str, Any]:
    """Every network of every family, and the exponents."""
    families = {}
    left_out = []
    for family, names in FAMILIES.items():
        rows = []
        for name in names:
            if zoo.parameter_count(name) * 4e-6 > max_mb:
                left_out.append(name)
                continue
            rows.append(measure(name, rounds))
            print(rows[-1], flush=True)
        families[family] = {"networks": rows, "exponents": {s: exponent(rows, s) for s in STEPS}}
    machine = {"processor": platform.machine(), "torch": torch.__version__, "rounds": rounds}
    return {"machine": machine, "left_out": left_out, "families": families}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Size and least seconds of one network."""
    module, shape = zoo.build(name)
    program = capture(module, (torch.randn(2, *shape),), name=name)
    seconds = []
    for number in range(rounds):
        again = replace(program, name=f"{name}, round {number}")  # not known to the analysis yet
        start = time.process_time()
        channels = analyse(again)
        middle = time.process_time()
        keep = half(channels)
        pruning = time.process_time()
        apply(again, channels, keep)
        seconds.append((middle - start, time.process_time() - pruning))
    return {
        "name": name,
        "nodes": len(program.module.graph.nodes),
        "channels": sum(layer.out_channels for layer in layers(program)),
        **{step: min(s[i] for s in seconds) for i, step in enumerate(STEPS)},
    }


def size(row: Mapping[str, Any]) -> int:
    return int(row["nodes"] + row["channels"])


def exponent(rows: Sequence[Mapping[str, Any]], step: str) -> float:
    """The slope of log(seconds) over log(size), by least squares."""
    x, y = (np.log([f(r) for r in rows]) for f in (size, lambda r: r[step]))
    return float(np.polyfit(x, y, 1)[0])


def markdown(record: Mapping[str, Any]) -> str:
    """The measurements and the exponents as two tables."""
    out = record["left_out"]
    lines = [
        "# Growth of analysis and pruning",
        "",
        "`python -m benchmarks.coverage.growth`: CPU seconds of one thread, least of "
        f"{record['machine']['rounds']}; half of every group removed. Exponent: slope of log(seconds) over",
        "log(nodes + output channels); 1 is linear. Pruning also copies the weights that stay.",
        *([f"Not measured, larger than `--max-mb`: {', '.join(out)}."] if out else []),
        "",
        "| network | nodes | channels | analysis (s) | pruning (s) | µs per node and channel |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for family in record["families"].values():
        for r in family["networks"]:
            each = 1e6 * (r["analysis_s"] + r["pruning_s"]) / size(r)
            lines.append(
                f"| {r['name']} | {r['nodes']} | {r['channels']} | {r['analysis_s']:.3f} | "
                f"{r['pruning_s']:.3f} | {each:.1f} |"
            )
    lines += ["", "| family | exponent of analysis | exponent of pruning |", "|---|---:|---:|"]
    for name, family in record["families"].items():
        a, p = (family["exponents"][s] for s in STEPS)
        lines.append(f"| {name} | {a:.2f} | {p:.2f} |")
    return "\n".join(lines) + "\n"


def picture(families: Mapping[str, Any]) -> str:
    """Seconds over size, both logarithmic, equally long decades: a linear cost rises at 45 degrees."""
    rows = [r for family in families.values() for r in family["networks"]]
    left = math.log10(min(map(size, rows))) - 0.1
    bottom = math.log10(min(r[s] for r in rows for s in STEPS)) - 0.1
    top = math.log10(max(r[s] for r in rows for s in STEPS)) + 0.1
    span = max(math.log10(max(map(size, rows))) + 0.1 - left, top - bottom)
    scale = (_SIDE - 2 * _EDGE) / span

    def place(row: Mapping[str, Any], step: str) -> tuple[float, float]:
        x, y = math.log10(size(row)) - left, math.log10(row[step]) - bottom
        return _EDGE + x * scale, _SIDE - _EDGE - y * scale

    body = [
        f'<path d="M{_EDGE} {_EDGE}V{_SIDE - _EDGE}H{_SIDE - _EDGE}" fill="none" stroke="#888"/>',
        f'<path d="M{_EDGE} {_SIDE - _EDGE}L{_SIDE - _EDGE} {_EDGE}" stroke="#ccc" stroke-dasharray="4"/>',
        f'<text x="{_SIDE - _EDGE}" y="{_SIDE - 8}" text-anchor="end">nodes + channels (grey: linear)</text>',
        f'<text x="{_EDGE}" y="16">CPU seconds (filled: analysis, open: pruning)</text>',
        *_ticks(left, span, scale, lambda p: (p, _SIDE - _EDGE + 14), "middle"),
        *_ticks(bottom, span, scale, lambda p: (_EDGE - 4, _SIDE - p + 4), "end"),
    ]
    for number, (name, family) in enumerate(families.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        body.append(f'<text x="{_EDGE + 10}" y="{_EDGE + 16 * number}" fill="{colour}">{escape(name)}</text>')
        for step, fill in zip(STEPS, (colour, "white"), strict=True):
            body += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}"/>'
                for x, y in (place(r, step) for r in family["networks"])
            ]
    inner = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIDE} {_SIDE}" '
        f'font-family="sans-serif" font-size="12">\n{inner}\n</svg>\n'
    )


def _ticks(low: float, span: float, scale: float, at: Any, anchor: str) -> Iterator[str]:
    """Labels at 1, 2 and 5 times the powers of ten."""
    for power in range(math.floor(low), math.ceil(low + span) + 1):
        for digit in (1, 2, 5):
            away = power + math.log10(digit) - low
            if 0 <= away <= span:
                x, y = at(_EDGE + away * scale)
                value = digit * 10.0**power
                yield f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{value:g}</text>'


if __name__ == "__main__":
    main()
