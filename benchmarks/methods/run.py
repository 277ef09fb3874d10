"""Which method keeps most? One network, budgets of activation volume or another resource, equal epochs.

    python -m benchmarks.methods.run --model resnet20_cifar10.pt2 --data cifar10 [--factors 2 4 8 16]
    python -m benchmarks.methods.run --model digits.pt2 --data digits.npz --name digits

Each run is one `compress` command line, as a user would run it: `--learn` epochs of learning and `--tune` of
fine-tuning, and both together as fine-tuning where the method learns nothing. A folder of images is thinned
to so many of each class (`--train`, `--val`). NAME.json and NAME.md are replaced after every run; what is
there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.schedules.run import answer, thinned

HERE = Path(__file__).parent
FIXED = ("--formats", "onnx", "--precision", "fp32", "--runtime", "onnxruntime", "--quiet")
METHODS: Mapping[str, tuple[str, ...]] = {
    "random": ("--method", "uniform", "--criterion", "random"),
    "weight magnitude": ("--method", "uniform", "--criterion", "magnitude"),
    "vector quantization": ("--method", "uniform", "--criterion", "vector-quantization"),
    "interpolative decomposition": ("--method", "uniform", "--criterion", "interpolative"),
    "planner": (),
    "taylor-iterative": ("--method", "taylor-iterative"),
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
LEARNING = ("taylor-iterative", "morphnet", "l0", "bottleneck", "bar")
RESOURCES = ("neurons", "macs", "params")


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
        data = thinned(data, flags.out.absolute() / f"data-{flags.train}-{flags.val}", flags.train, flags.val)
    whole = json.loads(answer("inspect", str(flags.model), "--json"))["cost"]
    setting = {k: getattr(flags, k) for k in ("resource", "learn", "tune", "train", "val", "batch_size")}
    results = HERE / f"{flags.name}.json"
    record: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    if record.get("setting") != setting:
        record = {"setting": setting, "model": flags.model.stem, "whole": whole, "runs": []}
    done = {(run["method"], run["factor"], run["seed"]) for run in record["runs"]}
    for seed in flags.seeds:
        for factor in flags.factors:
            for method in flags.methods:
                if (method, factor, seed) not in done:
                    found = one(flags, data, whole, method, factor, seed)
                    record["runs"].append(found)
                    print(json.dumps(found), flush=True)
                    results.write_text(json.dumps(record, indent=1) + "\n")
                    results.with_suffix(".md").write_text(markdown(record))
    return 0


def one(
    flags: argparse.Namespace, data: Path, whole: Mapping[str, int], method: str, factor: float, seed: int
) -> dict[str, Any]:
    """One `compress` into a folder of its own, and what its report says."""
    limit = int(whole[flags.resource] / factor)
    out = flags.out / f"{flags.name}-{method.replace(', ', '-').replace(' ', '-')}-{factor:g}-{seed}"
    learns = any(name in METHODS[method] for name in LEARNING)
    words = ["compress", str(flags.model), "--data", str(data), f"--budget-{flags.resource}", str(limit)]
    words += ["--epochs", str(flags.tune if learns else flags.learn + flags.tune)]
    words += ["--method-epochs", str(flags.learn)] if learns else []
    words += ["--seed", str(seed), "--batch-size", str(flags.batch_size), *METHODS[method]]
    shutil.rmtree(out, ignore_errors=True)
    answer(*words, *FIXED, "--out", str(out))
    report = json.loads((out / "report.json").read_text())
    used = report["result"]["cost"]
    return {
        "method": method,
        "factor": factor,
        "seed": seed,
        "limit": limit,
        "held": used[flags.resource] <= limit and report["verdict"] == "held",
        "top1_before": report["baseline"]["metric"]["value"],
        "top1": report["result"]["metric"]["value"],
        "cost": {name: used[name] for name in RESOURCES},
        "dropped": report["plan"]["dropped"],
        "notes": [n for n in report["notes"] if n.startswith((*LEARNING, "mixed connectivity"))],
        "seconds": sum(report["timings"].get(name, 0.0) for name in ("learn", "fine-tune")),
    }


def markdown(record: Mapping[str, Any]) -> str:
    """The table: top-1 of what is delivered at every factor."""
    setting, runs = record["setting"], record["runs"]
    factors = sorted({run["factor"] for run in runs})
    seeds = sorted({run["seed"] for run in runs})
    held = sum(run["held"] for run in runs)
    lines = [
        f"# Methods under budgets of {setting['resource']}",
        "",
        f"{record['model']}, {runs[0]['top1_before']:.2f} % before; budgets are its"
        f" {record['whole'][setting['resource']]:,} {setting['resource']} divided by 2, 4, ...;"
        f" {setting['learn']} epochs of learning and {setting['tune']} of fine-tuning, together the epochs of"
        f" those that do not learn; batches of {setting['batch_size']}; seeds {', '.join(map(str, seeds))},"
        " means. In brackets the multiply-accumulates that are left.",
        f"Of {len(runs)} runs {held} held the budget.",
        "",
        "| method | " + " | ".join(f"{factor:g}x" for factor in factors) + " |",
        "| --- |" + " --- |" * len(factors),
    ]
    for method in dict.fromkeys(run["method"] for run in runs):
        cells = []
        for factor in factors:
            mine = [run for run in runs if run["method"] == method and run["factor"] == factor]
            macs = mean(run["cost"]["macs"] for run in mine) / record["whole"]["macs"] if mine else 0.0
            cells.append(f"{mean(run['top1'] for run in mine):.2f} % ({macs:.1%})" if mine else "not run")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    made = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in setting.items())
    asked = f"--factors {' '.join(f'{f:g}' for f in factors)} --seeds {' '.join(map(str, seeds))}"
    command = f"python -m benchmarks.methods.run --model {record['model']}.pt2 --data DATA {made} {asked}"
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


if __name__ == "__main__":
    raise SystemExit(main())
