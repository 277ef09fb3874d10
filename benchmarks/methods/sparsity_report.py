"""The results of `sparsity.py` as tables and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.methods.panels import Panel, svg

Record = Mapping[str, Any]
WORDS = {
    "fresh": "From random weights",
    "scratch": "From a network trained on the same images",
    "pretrained": "From a network trained on many more images of the kind",
}


def doubt(images: int) -> str:
    """How well so many images tell the accuracy of one network: the standard error at 50 %."""
    return (
        f"Of {images} images, the top-1 of one run is known to +- {100 * (0.25 / images) ** 0.5:.1f} points"
        " (standard error)."
    )


def cell(values: Sequence[float]) -> str:
    """Mean and spread of a cell's runs."""
    if not values:
        return "not run"
    spread = f" ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else ""
    return f"{mean(values):.1f} %{spread}"


def markdown(record: Record) -> str:
    """A table a history: top-1 after the last epoch."""
    setting, runs = record["setting"], record["runs"]
    seeds = sorted({run["seed"] for run in runs})
    lines = [
        "# Weights made zero by four schedules, from three histories",
        "",
        f"A VGG of 193,178 parameters on CIFAR-10; {setting['epochs']} epochs on {setting['train']} training"
        f" images of each class in batches of {setting['batch_size']}, no teacher, the same learning rate"
        f" everywhere; top-1 of {setting['val']} validation images of each class after the last epoch"
        " (not the best one, which would favour schedules that are done early);"
        f" seeds {', '.join(map(str, seeds))},"
        f" means, in brackets the lowest and the highest run. {doubt(10 * setting['val'])}",
        f"`scratch`: trained before for {setting['before']} epochs on the same images; `pretrained`: for"
        f" {setting['corpus_epochs']} epochs on {setting['corpus']} images of each class.",
        "",
        "![top-1 over sparsity](sparsity.svg)",
    ]
    for history in dict.fromkeys(run["history"] for run in runs):
        lines += _table(history, [run for run in runs if run["history"] == history])
    made = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in setting.items())
    command = f"python -m benchmarks.methods.sparsity --data DIR {made} --seeds {' '.join(map(str, seeds))}"
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def _table(history: str, runs: Sequence[Record]) -> list[str]:
    shares = sorted({run["sparsity"] for run in runs} - {0.0})
    dense = [run["last"] for run in runs if run["schedule"] == "dense"]
    lines = ["", f"## {WORDS[history]}", "", f"Dense, the same epochs: {cell(dense)}.", ""]
    lines += ["| schedule | " + " | ".join(f"{s:.0%} zero" for s in shares) + " |"]
    lines += ["| --- |" + " --- |" * len(shares)]
    for name in dict.fromkeys(run["schedule"] for run in runs if run["schedule"] != "dense"):
        cells = [
            cell([run["last"] for run in runs if (run["schedule"], run["sparsity"]) == (name, share)])
            for share in shares
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def picture(record: Record) -> str:
    """Top-1 over sparsity, a panel a history."""
    panels = []
    for history in dict.fromkeys(run["history"] for run in record["runs"]):
        runs = [run for run in record["runs"] if run["history"] == history]
        dense = [run["last"] for run in runs if run["schedule"] == "dense"]
        series = {
            name: [(run["sparsity"], run["last"]) for run in runs if run["schedule"] == name]
            for name in dict.fromkeys(run["schedule"] for run in runs if run["schedule"] != "dense")
        }
        if series:
            level = ("dense", mean(dense)) if dense else None
            words = WORDS[history]
            panels.append(
                Panel(
                    title=words,
                    x="weights that are zero",
                    y="top-1 (%)",
                    series=series,
                    level=level,
                    reads="{:.0%}".format,
                )
            )
    return svg(panels) if panels else ""
