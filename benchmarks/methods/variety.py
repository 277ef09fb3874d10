"""Does `--variety` help? The same criterion with and without it, at equal budgets and epochs.

    python -m benchmarks.methods.variety --model MODEL.pt2 --data cifar10 [--seeds 0 1]

Each run is one `compress` command line under a budget of multiply-accumulates. Methods: `planner`, where the
criterion decides on widths and units, and `uniform`, where every group keeps the same share and it decides on
units alone; `not fitted`: with `--no-refit`, as the fit to the original's outputs before fine-tuning may be
taken with one choice of units and left with another. variety.json, .md and .svg are replaced after every
run; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.methods.panels import Panel, svg
from benchmarks.methods.sparsity_report import cell, doubt
from benchmarks.schedules.run import FIXED, answer
from benchmarks.tables import add, few, opened

HERE = Path(__file__).parent
SETTING = ("epochs", "train", "val", "batch_size")
METHODS: Mapping[str, tuple[str, ...]] = {
    "planner": ("--method", "planner"),
    "planner, not fitted": ("--method", "planner", "--no-refit"),
    "uniform": ("--method", "uniform"),
    "uniform, not fitted": ("--method", "uniform", "--no-refit"),
}
CRITERIA = ("magnitude", "taylor")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["uniform, not fitted"])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA))
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.5, 0.25], help="of the macs that may stay"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train", type=int, default=150, help="training images of each class (150)")
    parser.add_argument("--val", type=int, default=100, help="validation images of each class (100)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("build/variety"))
    flags = parser.parse_args()
    data = few(flags)
    setting = {name: getattr(flags, name) for name in SETTING}
    results = HERE / "variety.json"
    record = opened(results, setting, lambda: {"model": flags.model.stem, "macs": macs(flags.model)})
    keys = ("method", "criterion", "variety", "share", "seed")
    done = {tuple(run[key] for key in keys) for run in record["runs"]}
    cells = [
        (method, criterion, variety, share, seed)
        for seed in flags.seeds
        for method in flags.methods
        for share in flags.shares
        for criterion in flags.criteria
        for variety in (False, True)
    ]
    for one in cells:
        if one not in done:
            named = dict(zip(keys, one, strict=True))
            run = named | compressed(flags, data, record["macs"], named)
            add(results, record, run, markdown, picture)
    return 0


def macs(model: Path) -> int:
    """Multiply-accumulates of the whole network."""
    found: int = json.loads(answer("inspect", str(model), "--json"))["cost"]["macs"]
    return found


def compressed(flags: argparse.Namespace, data: Path, macs: int, named: Mapping[str, Any]) -> dict[str, Any]:
    """One `compress`; what its report says."""
    out = flags.out / "-".join(str(value).replace(", ", "-").replace(" ", "-") for value in named.values())
    words = ["compress", str(flags.model), "--data", str(data)]
    words += ["--budget-macs", str(round(macs * named["share"])), *METHODS[named["method"]]]
    words += ["--criterion", named["criterion"], "--seed", str(named["seed"])]
    words += ["--epochs", str(flags.epochs), "--batch-size", str(flags.batch_size)]
    words += ["--variety"] if named["variety"] else []
    shutil.rmtree(out, ignore_errors=True)
    answer(*words, *FIXED, "--out", str(out))
    report = json.loads((out / "report.json").read_text())
    return {
        "top1_before": report["baseline"]["metric"]["value"],
        "last": report["training"]["epochs"][-1]["metric"],
        "top1": report["result"]["metric"]["value"],
        "macs": report["result"]["cost"]["macs"],
        "params": report["result"]["cost"]["params"],
        "damage": report["plan"]["damage"],
        "notes": report["notes"],
    }


def markdown(record: Mapping[str, Any]) -> str:
    """A table a method: top-1 after the last epoch, without variety, with it, and the difference."""
    setting, runs = record["setting"], record["runs"]
    seeds = " ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    shares = sorted({run["share"] for run in runs}, reverse=True)
    lines = [
        "# Variety on and off",
        "",
        f"{record['model']} on CIFAR-10, {runs[0]['top1_before']:.1f} % before, {record['macs']:,} multiply-"
        f"accumulates; {setting['epochs']} epochs of fine-tuning on {setting['train']} training images of"
        f" each class in batches of {setting['batch_size']}, judged on {setting['val']} validation images of"
        f" each class after the last epoch; seeds {seeds}, means, in brackets the lowest and the highest run."
        " `damage`: nats by which the cut network differs from the original before fine-tuning, of the first"
        f" seed. {doubt(10 * setting['val'])}",
        "",
        "![top-1 over the share that stays](variety.svg)",
    ]
    for method in dict.fromkeys(run["method"] for run in runs):
        lines += ["", f"## {method}", "", "| criterion | MACs | off | on | on - off | damage off, on |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for criterion in dict.fromkeys(run["criterion"] for run in runs):
            for share in shares:
                mine = [
                    r for r in runs if (r["method"], r["criterion"], r["share"]) == (method, criterion, share)
                ]
                sides = [[run for run in mine if run["variety"] == on] for on in (False, True)]
                if not all(sides):
                    continue
                off, on = ([run["last"] for run in side] for side in sides)
                damages = ", ".join(f"{side[0]['damage']:.2f}" for side in sides)
                lines.append(
                    f"| {criterion} | {share:.0%} | {cell(off)} | {cell(on)} | {mean(on) - mean(off):+.1f} |"
                    f" {damages} |"
                )
    made = " ".join(f"--{name.replace('_', '-')} {setting[name]}" for name in SETTING)
    methods = dict.fromkeys(run["method"] for run in runs)
    asked = "--methods " + " ".join(f"'{method}'" for method in methods)
    asked += f" --shares {' '.join(f'{share:g}' for share in shares)} --seeds {seeds}"
    command = f"python -m benchmarks.methods.variety --model {record['model']}.pt2 --data DIR {made} {asked}"
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def picture(record: Mapping[str, Any]) -> str:
    """Top-1 over the share of multiply-accumulates, a panel a method and criterion."""
    panels = []
    for method, criterion in dict.fromkeys((run["method"], run["criterion"]) for run in record["runs"]):
        runs = [run for run in record["runs"] if (run["method"], run["criterion"]) == (method, criterion)]
        series = {
            f"variety {word}": [(run["share"], run["last"]) for run in runs if run["variety"] == on]
            for word, on in (("off", False), ("on", True))
        }
        panels.append(
            Panel(
                title=f"{method}, {criterion}",
                x="multiply-accumulates left",
                y="top-1 (%)",
                series={name: points for name, points in series.items() if points},
                level=("before", runs[0]["top1_before"]),
                reads="{:.0%}".format,
            )
        )
    return svg(panels)


if __name__ == "__main__":
    raise SystemExit(main())
