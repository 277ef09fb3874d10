"""Which method keeps most? One network, budgets of activation volume or another resource, equal epochs.

    python -m benchmarks.methods.run --model resnet20_cifar10.pt2 --data cifar10 [--factors 2 4 8 16]
    python -m benchmarks.methods.run --model resnet20_cifar10.pt2 --data cifar10 --resource ms --factors 2 4 \
        --name resnet20_ms

Each run is one `compress` command line, as a user would run it: `--learn` epochs of learning and `--tune` of
fine-tuning, and both together as fine-tuning where the method learns nothing. A folder of images is thinned
to so many of each class (`--train`, `--val`). Budgets of milliseconds are a share of what the whole network
takes on this machine, measured once, before the first run. NAME.json, NAME.md and NAME.svg are replaced after
every run; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.commands import edgefit
from benchmarks.methods.panels import Panel, svg
from benchmarks.schedules.run import answer
from benchmarks.tables import add, few, opened
from toolchain.errors import BudgetError

HERE = Path(__file__).parent
FIXED = ("--formats", "onnx", "--precision", "fp32", "--runtime", "onnxruntime", "--quiet")
METHODS: Mapping[str, tuple[str, ...]] = {
    "random": ("--method", "uniform", "--criterion", "random"),
    "weight magnitude": ("--method", "uniform", "--criterion", "magnitude"),
    "vector quantization": ("--method", "uniform", "--criterion", "vector-quantization"),
    "interpolative decomposition": ("--method", "uniform", "--criterion", "interpolative"),
    "planner": (),
    "taylor-iterative": ("--method", "taylor-iterative"),
    "l1l2": ("--method", "l1l2"),
    "morphnet": ("--method", "morphnet"),
    "l0": ("--method", "l0"),
    "bottleneck": ("--method", "bottleneck"),
    "bar": ("--method", "bar"),
    "bar, no distillation": ("--method", "bar", "--distil-weight", "0"),
    "bar, linear": ("--method", "bar", "--transition", "linear"),
    "bar, exponential": ("--method", "bar", "--transition", "exponential"),
    "bar, mixed connectivity": ("--method", "bar", "--connectivity", "always"),
    "planner, mixed connectivity": ("--connectivity", "always"),
}
NOTES = (
    "taylor-iterative",
    "l1l2",
    "morphnet",
    "l0",
    "bottleneck",
    "bar",
    "mixed connectivity",
    "fine-tuning starts",
)
LEARNING = ("taylor-iterative", "l1l2", "morphnet", "l0", "bottleneck", "bar")
RESOURCES = ("neurons", "macs", "params", "ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/, or .npz")
    parser.add_argument("--name", default="results", help="of the files with the results")
    parser.add_argument("--resource", choices=RESOURCES, default="neurons")
    parser.add_argument("--factors", type=float, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--learn", type=int, default=4, help="epochs (4)")
    parser.add_argument("--tune", type=int, default=2, help="epochs (2)")
    parser.add_argument("--train", type=int, default=500, help="training images of each class (500)")
    parser.add_argument("--val", type=int, default=200, help="validation images of each class (200)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("build/methods"))
    flags = parser.parse_args()
    data = flags.data
    if data.is_dir():
        data = few(flags)
    setting = {k: getattr(flags, k) for k in ("resource", "learn", "tune", "train", "val", "batch_size")}
    results = HERE / f"{flags.name}.json"
    record = opened(results, setting, lambda: {"model": flags.model.stem, "whole": measured(flags)})
    done = {(run["method"], run["factor"], run["seed"]) for run in record["runs"]}
    for seed in flags.seeds:
        for factor in flags.factors:
            for method in flags.methods:
                if (method, factor, seed) not in done:
                    found = one(flags, data, record["whole"], method, factor, seed)
                    add(results, record, found, partial(markdown, name=flags.name), picture)
    return 0


def measured(flags: argparse.Namespace) -> dict[str, Any]:
    """What the whole network uses of every resource; milliseconds only where they are the budget."""
    found: dict[str, Any] = json.loads(answer("inspect", str(flags.model), "--json"))["cost"]
    if flags.resource == "ms":
        words = ("bench", str(flags.model), "--runtime", "onnxruntime", "--tier", "normal", "--json")
        found["ms"] = json.loads(answer(*words))["models"][0]["timing"]["p50"]["value"]
    return found


def one(
    flags: argparse.Namespace, data: Path, whole: Mapping[str, Any], method: str, factor: float, seed: int
) -> dict[str, Any]:
    """One `compress` into a folder of its own, and what its report says; `top1` null where it got no plan."""
    limit = whole[flags.resource] / factor
    limit = limit if flags.resource == "ms" else int(limit)
    out = flags.out / f"{flags.name}-{method.replace(', ', '-').replace(' ', '-')}-{factor:g}-{seed}"
    learns = any(name in METHODS[method] for name in LEARNING)
    words = ["compress", str(flags.model), "--data", str(data), f"--budget-{flags.resource}", f"{limit:.6g}"]
    words += ["--epochs", str(flags.tune if learns else flags.learn + flags.tune)]
    words += ["--method-epochs", str(flags.learn)] if learns else []
    words += ["--seed", str(seed), "--batch-size", str(flags.batch_size), *METHODS[method]]
    shutil.rmtree(out, ignore_errors=True)
    ended = edgefit(*words, *FIXED, "--out", str(out))
    found: dict[str, Any] = {"method": method, "factor": factor, "seed": seed, "limit": limit}
    if ended.returncode == BudgetError.exit_code:
        return found | {"held": False, "top1": None, "notes": ended.stderr.splitlines()[:1]}
    if not (out / "report.json").exists():
        raise SystemExit(f"{' '.join(words)}: exit code {ended.returncode}\n{ended.stderr}")
    report = json.loads((out / "report.json").read_text())
    result = report["result"]
    return found | {
        "held": report["verdict"] == "held",
        "top1_before": report["baseline"]["metric"]["value"],
        "top1": result["metric"]["value"],
        "cost": {name: result["cost"][name] for name in RESOURCES if name in result["cost"]},
        "ms": _time(result),
        "dropped": report["plan"]["dropped"],
        "notes": [n for n in report["notes"] if n.startswith(NOTES)],
        "seconds": sum(report["timings"].get(name, 0.0) for name in ("learn", "fine-tune")),
    }


def _time(result: Mapping[str, Any]) -> float:
    """What the delivered file took; the original is measured again beside it."""
    chosen = next(a["sha256"] for a in result["artifacts"] if a["chosen"])
    found: float = next(m["p50_ms"] for m in result["measurements"] if m["sha256"] == chosen)
    return found


def markdown(record: Mapping[str, Any], name: str) -> str:
    """The table: top-1 of what is delivered at every factor."""
    setting, runs = record["setting"], record["runs"]
    resource = setting["resource"]
    whole = f"{record['whole'][resource]:.3f}" if resource == "ms" else f"{record['whole'][resource]:,}"
    factors = sorted({run["factor"] for run in runs})
    seeds = sorted({run["seed"] for run in runs})
    held = sum(run["held"] for run in runs)
    before = next((run["top1_before"] for run in runs if run["top1"] is not None), math.nan)
    lines = [
        f"# Methods under budgets of {resource}",
        "",
        f"{record['model']}, {before:.2f} % before; budgets are its {whole} {resource} divided by 2, 4, ...;"
        f" {setting['learn']} epochs of learning and {setting['tune']} of fine-tuning, together the epochs of"
        f" those that do not learn, {setting['train']} images of each class an epoch; batches of"
        f" {setting['batch_size']}. In brackets the"
        f" {'multiply-accumulates' if resource != 'ms' else 'time'} left. {_told(seeds)}",
        f"Of {len(runs)} runs {held} held the budget.",
        "",
        "| method | " + " | ".join(f"{factor:g}x" for factor in factors) + " |",
        "| --- |" + " --- |" * len(factors),
    ]
    for method in dict.fromkeys(name for name in METHODS if any(run["method"] == name for run in runs)):
        cells = []
        for factor in factors:
            mine = [run for run in runs if run["method"] == method and run["factor"] == factor]
            cells.append(_cell(mine, record["whole"], resource))
        lines.append(f"| {method} | {' | '.join(cells)} |")
    made = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in setting.items())
    asked = f"--factors {' '.join(f'{f:g}' for f in factors)} --seeds {' '.join(map(str, seeds))}"
    command = f"python -m benchmarks.methods.run --model {record['model']}.pt2 --data DATA --name {name}"
    pictured = f"![top-1 over the budget]({name}.svg)"
    return "\n".join([*lines, "", pictured, "", f"Made by `{command} {made} {asked}`.", ""])


def _told(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    named = " and ".join(map(str, seeds))
    return f"Seeds {named}: mean, lowest and highest where there are several, else seed {seeds[0]}."


def _cell(runs: Sequence[Mapping[str, Any]], whole: Mapping[str, Any], resource: str) -> str:
    reached = [run for run in runs if run["top1"] is not None]
    if not reached:
        return "no plan" if runs else "not run"
    if resource == "ms":
        left = mean(run["ms"] / run["factor"] / run["limit"] for run in reached)
    else:
        left = mean(run["cost"]["macs"] / whole["macs"] for run in reached)
    missed = "" if all(run["held"] for run in reached) else ", budget missed"
    values = [run["top1"] for run in reached]
    span = f" {min(values):.2f}-{max(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f} %{span} ({left:.1%}{missed})"


def picture(record: Mapping[str, Any]) -> str:
    """Top-1 over the factor, a line for every method that was run at several."""
    runs = [run for run in record["runs"] if run["top1"] is not None]
    points: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        points.setdefault(run["method"], []).append((math.log2(run["factor"]), run["top1"]))
    several = {name: found for name, found in points.items() if len({x for x, _ in found}) > 1} or points
    resource = record["setting"]["resource"]
    panel = Panel(
        title=record["model"],
        x=f"{resource}: whole / budget",
        y="top-1, %",
        series=several,
        level=("before", runs[0]["top1_before"]) if runs else None,
        reads=lambda x: f"{2**x:g}x",
    )
    return svg([panel]) if runs else ""


if __name__ == "__main__":
    raise SystemExit(main())
