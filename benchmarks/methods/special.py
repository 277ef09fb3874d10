"""A network for two of its ten classes against the whole one, pruned to the same size.

    python -m benchmarks.methods.special --model resnet20_cifar10.pt2 --data cifar10 [--classes cat dog]

Each run is one `compress` command line under a budget of parameters: of all ten classes, of two of them
(`--classes`) by the planner and by `--method l1l2`. All see the same images of these two classes; the network
of ten sees those of the others as well, and so makes more steps in as many epochs. Where it says `as many
steps`, the network of two has more epochs instead. What is delivered is judged on all validation images of
the two classes, the network of ten also as if it knew that it is one of the two.
special.json and special.md are replaced after every run; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.methods.sparsity_report import cell, doubt
from benchmarks.schedules.run import FIXED, answer
from benchmarks.tables import add, few, opened
from toolchain.contracts import Data
from toolchain.load.opening import load
from toolchain.train.data import open_data
from toolchain.train.metric import program_runner
from toolchain.values import Preprocessing, Program

HERE = Path(__file__).parent
STEPS = ", as many steps"
KINDS: Mapping[str, tuple[str, ...]] = {
    "ten classes, planner": (),
    "two classes, planner": ("--classes",),
    "two classes, l1l2": ("--classes", "--method", "l1l2"),
    f"two classes, planner{STEPS}": ("--classes",),
    f"two classes, l1l2{STEPS}": ("--classes", "--method", "l1l2"),
}
SETTING = ("classes", "learn", "tune", "train", "val", "batch_size")
Network = Callable[[Tensor], Tensor]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="of ten classes, input 32 x 32")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--classes", nargs="+", default=["cat", "dog"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.1], help="of the parameters")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--learn", type=int, default=1, help="epochs of l1l2, more fine-tuning elsewhere (1)")
    parser.add_argument("--tune", type=int, default=2, help="epochs of fine-tuning (2)")
    parser.add_argument("--train", type=int, default=200, help="training images of each class (200)")
    parser.add_argument(
        "--val", type=int, default=100, help="images of each class that choose the epoch (100)"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("build/special"))
    flags = parser.parse_args()
    setting = {name: getattr(flags, name) for name in SETTING}
    program = load(flags.model)
    everything = open_data(str(flags.data), preprocessing=Preprocessing(), program_inputs=program.inputs)
    numbers = [everything.classes.index(name) for name in flags.classes]
    results = HERE / "special.json"

    def begin() -> dict[str, Any]:
        whole = json.loads(answer("inspect", str(flags.model), "--json"))["cost"]
        judged = scores(_torch(program), everything, numbers)
        return {"model": flags.model.stem, "cost": whole, **judged}

    record = opened(results, setting, begin)
    data = few(flags)
    done = {(run["kind"], run["share"], run["seed"]) for run in record["runs"]}
    for seed in flags.seeds:
        for share in flags.shares:
            for kind in flags.kinds:
                if (kind, share, seed) in done:
                    continue
                limit = int(record["cost"]["params"] * share)
                longer = len(everything.classes) // len(numbers) if kind.endswith(STEPS) else 1
                run = one(flags, data, kind, limit, seed, longer) | {
                    "kind": kind,
                    "share": share,
                    "seed": seed,
                }
                own = numbers if kind.startswith("ten") else list(range(len(numbers)))
                run |= scores(_onnx(run.pop("file")), everything, numbers, own)
                add(results, record, run, markdown)
    return 0


def one(
    flags: argparse.Namespace, data: Path, kind: str, limit: int, seed: int, longer: int
) -> dict[str, Any]:
    """One `compress`, with `longer` times the epochs; what its report says."""
    out = flags.out / f"{kind.replace(', ', '-').replace(' ', '-')}-{limit}-{seed}"
    learns = "--method" in KINDS[kind]
    words = ["compress", str(flags.model), "--data", str(data), "--budget-params", str(limit)]
    for word in KINDS[kind]:
        words += [word, ",".join(flags.classes)] if word == "--classes" else [word]
    words += ["--epochs", str(longer * (flags.tune if learns else flags.learn + flags.tune))]
    words += ["--method-epochs", str(longer * flags.learn)] if learns else []
    words += ["--seed", str(seed), "--batch-size", str(flags.batch_size)]
    shutil.rmtree(out, ignore_errors=True)
    answer(*words, *FIXED, "--out", str(out))
    report = json.loads((out / "report.json").read_text())
    return {
        "cost": {name: report["result"]["cost"][name] for name in ("params", "macs")},
        "limit": limit,
        "file": out / report["result"]["artifacts"][0]["path"],
        "bytes": report["result"]["artifacts"][0]["size_bytes"],
        "notes": report["notes"],
    }


def scores(
    network: Network, data: Data, numbers: list[int], own: list[int] | None = None
) -> dict[str, float | None]:
    """Top-1 in percent on the images of the classes `numbers`: among them, and among all that it knows.

    `own` are the outputs that stand for these classes; where there are no others, the second is None.
    """
    own = numbers if own is None else own
    among, right, count, others = 0, 0, 0, False
    with torch.no_grad():
        for (x,), y in data.validation(250):
            mine = torch.isin(y, torch.tensor(numbers))
            if not bool(mine.any()):
                continue
            wanted = torch.tensor([numbers.index(int(label)) for label in y[mine]])
            outputs = network(x[mine])
            others = outputs.shape[1] > len(own)
            among += int((outputs[:, own].argmax(1) == wanted).sum())
            right += int((outputs.argmax(1) == torch.tensor(own)[wanted]).sum())
            count += len(wanted)
    return {
        "among": 100 * among / count,
        "of_all": 100 * right / count if others else None,
        "samples": count,
    }


def _torch(program: Program) -> Network:
    run = program_runner(program)
    return lambda x: run((x,))[0]


def _onnx(path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        # The files take one image a time.
        return torch.cat([torch.from_numpy(session.run(None, {name: one[None].numpy()})[0]) for one in x])

    return run


def markdown(record: Mapping[str, Any]) -> str:
    """A row for each size and kind of network."""
    setting, runs = record["setting"], record["runs"]
    seeds = sorted({run["seed"] for run in runs})
    classes = " and ".join(setting["classes"])
    whole = record["cost"]
    lines = [
        f"# {classes.capitalize()}: a network for two classes against one for ten",
        "",
        f"{record['model']} on CIFAR-10; {setting['learn'] + setting['tune']} epochs altogether (with l1l2"
        f" {setting['learn']} of them learning, {setting['tune']} fine-tuning) on {setting['train']} images"
        f" of each class in batches of {setting['batch_size']}. `as many steps`:"
        " more epochs, so that the steps are those of the network of ten."
        f" Judged on the {record['samples']} validation"
        f" images of {classes}: `two`: which of the two; `ten`: right among ten. Seeds"
        f" {', '.join(map(str, seeds))}, means. {doubt(record['samples'])}",
        "",
        "| network | parameters | share | MACs | two | ten |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| as handed in | {whole['params']:,} | 100 % | {whole['macs']:,} | {record['among']:.1f} % |"
        f" {record['of_all']:.1f} % |",
    ]
    for share in sorted({run["share"] for run in runs}, reverse=True):
        for kind in dict.fromkeys(run["kind"] for run in runs):
            mine = [run for run in runs if (run["kind"], run["share"]) == (kind, share)]
            if not mine:
                continue
            params, macs = (sum(run["cost"][n] for run in mine) // len(mine) for n in ("params", "macs"))
            ten = [run["of_all"] for run in mine if run["of_all"] is not None]
            lines.append(
                f"| {kind} | {params:,} | {share:.0%} asked | {macs:,} |"
                f" {cell([run['among'] for run in mine])} | {cell(ten) if ten else '-'} |"
            )
    made = " ".join(
        f"--{name.replace('_', '-')} {' '.join(value) if isinstance(value, list) else value}"
        for name, value in setting.items()
    )
    command = f"python -m benchmarks.methods.special --model {record['model']}.pt2 --data DIR {made}"
    return "\n".join([*lines, "", f"Made by `{command} --seeds {' '.join(map(str, seeds))}`.", ""])


if __name__ == "__main__":
    raise SystemExit(main())
