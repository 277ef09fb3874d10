"""Which schedule keeps most? One network, one plan a budget, one number of epochs, every schedule.

    python -m benchmarks.schedules.run --model resnet20_cifar10.pt2 --data cifar10 [--seeds 0 1]
    python -m benchmarks.schedules.run --model MODEL.pt2 --data DIR --resource params --name params ...

Each run is one `compress` command line under a budget of multiply-accumulates or parameters, as a user would
run it. All of a budget share one decision, so that they end at the same widths and blocks. The data are
thinned to so many images of each class (`--train`, `--val`). NAME.json and NAME.md are replaced after every
run; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.commands import edgefit
from benchmarks.tables import add, few, opened
from toolchain import registry

HERE = Path(__file__).parent
SCHEDULES = sorted(registry.names("toolchain.prune.schedules"), key="one-shot".__ne__)
"""All there are, the usual one first."""
RESOURCES = {"macs": "multiply-accumulates", "params": "parameters"}
FIXED = ("--formats", "onnx", "--precision", "fp32", "--runtime", "onnxruntime", "--quiet")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--name", default="results", help="of the files with the results")
    parser.add_argument("--resource", choices=tuple(RESOURCES), default="macs")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25], help="of it that may stay (0.25)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=1000, help="training images of each class (1000)")
    parser.add_argument("--val", type=int, default=500, help="validation images of each class (500)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("build/schedules"))
    flags = parser.parse_args()
    data = few(flags)
    whole = json.loads(answer("inspect", str(flags.model), "--json"))["cost"]
    setting = {k: getattr(flags, k) for k in ("resource", "epochs", "train", "val", "batch_size")}
    results = HERE / f"{flags.name}.json"
    cost = {name: whole[name] for name in RESOURCES}
    record = opened(results, setting, lambda: {"model": flags.model.stem, "whole": cost})
    done = {(run["share"], run["schedule"], run["seed"]) for run in record["runs"]}
    for seed in flags.seeds:
        for share in flags.shares:
            for schedule in SCHEDULES:
                if (share, schedule, seed) not in done:
                    found = one(flags, data, round(whole[flags.resource] * share), schedule, seed)
                    add(results, record, {"share": share} | found, markdown)
    return 0


def one(flags: argparse.Namespace, data: Path, budget: int, schedule: str, seed: int) -> dict[str, Any]:
    """One `compress`; the finished stages of the others, such as the decision, are found again."""
    out = flags.out / f"{flags.name}-{budget}-seed-{seed}"
    words = ["compress", str(flags.model), "--data", str(data), f"--budget-{flags.resource}", str(budget)]
    words += ["--epochs", str(flags.epochs), "--seed", str(seed), "--schedule", schedule]
    words += ["--batch-size", str(flags.batch_size)]
    answer(*words, *FIXED, "--out", str(out))
    shutil.copytree(out, flags.out / f"{flags.name}-{budget}-{schedule}-{seed}", dirs_exist_ok=True)
    report = json.loads((out / "report.json").read_text())
    plan = json.loads((out / "plan.json").read_text())
    epochs = report["training"]["epochs"]
    return {
        "schedule": schedule,
        "seed": seed,
        "top1_before": report["baseline"]["metric"]["value"],
        "top1": report["result"]["metric"]["value"],
        "macs": report["result"]["cost"]["macs"],
        "params": report["result"]["cost"]["params"],
        "dropped": plan["dropped"],
        "units_kept": sum(len(units) for units in plan["keep"].values()),
        "epochs": [{k: e[k] for k in ("epoch", "loss", "metric", "left", "seconds")} for e in epochs],
        "best_epoch": report["training"]["best_epoch"],
    }


def answer(*words: str) -> str:
    """What `edgefit WORDS` printed; a failure ends the benchmark with what it said."""
    ended = edgefit(*words)
    if ended.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {ended.returncode}\n{ended.stderr}")
    return ended.stdout


def markdown(record: dict[str, Any]) -> str:
    """A table a budget: top-1 of what is delivered, and after each epoch."""
    setting, runs, whole = record["setting"], record["runs"], record["whole"]
    seeds = " ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    shares = sorted({run["share"] for run in runs}, reverse=True)
    what = RESOURCES[setting["resource"]]
    lines = [
        "# Schedules at equal widths and equal epochs",
        "",
        f"{record['model']} on CIFAR-10, {runs[0]['top1_before']:.2f} % before,"
        f" {whole[setting['resource']]:,} {what}; {setting['epochs']} epochs on {setting['train']} training"
        f" images of each class in batches of {setting['batch_size']}, judged on {setting['val']} validation"
        f" images of each class; seeds {seeds}, means.",
        "In brackets the share of the parameters that was left then: an epoch before the final widths cannot"
        " be delivered.",
    ]
    for share in shares:
        lines += ["", f"## {share:.0%} of the {what}", ""]
        lines += _table([run for run in runs if run["share"] == share], setting["epochs"])
    made = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in setting.items())
    asked = f"--shares {' '.join(f'{share:g}' for share in shares)} --seeds {seeds}"
    command = f"python -m benchmarks.schedules.run --model MODEL.pt2 --data DIR {made} {asked}"
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def _table(runs: list[dict[str, Any]], count: int) -> list[str]:
    after = " | ".join(f"epoch {n + 1}" for n in range(count))
    lines = [f"| schedule | delivered | {after} |", "| --- | --- |" + " --- |" * count]
    for name in dict.fromkeys(run["schedule"] for run in runs):
        mine = [run for run in runs if run["schedule"] == name]
        cells = [f"{mean(run['top1'] for run in mine):.2f} %"]
        for number in range(count):
            epochs = [run["epochs"][number] for run in mine]
            left = [e["left"] for e in epochs if e["left"] is not None]
            part = f" ({mean(left):.0%})" if left else ""
            cells.append(f"{mean(e['metric'] for e in epochs):.2f} %{part}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
