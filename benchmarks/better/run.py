"""Is Edgefit better than torch-pruning at equal measured latency and equal fine-tuning?

    python -m benchmarks.better.train --resnet20 resnet20_cifar10.pt2 --data cifar10 --out models
    python -m benchmarks.better.run --models models --data cifar10 [--networks vgg] [--speedups 2 4 8]

For every network and speed-up: Edgefit plans for the measured latency of the network over the speed-up (its
closed loop, ONNX Runtime in float, one thread); each of torch-pruning's variants is cut as little as makes
it as slow as Edgefit's network, both measured in turns in fresh sessions; all are then fine-tuned by one
loop, with the same teacher, rate, images in the same order, and scored on the same validation images.

results.json, results.md and results.svg are replaced after every step; what they hold is not done again.
`--steps plan match` does all that needs a quiet machine, `--steps tune` the rest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.better import rivals
from benchmarks.better.contest import Contest, tuned
from benchmarks.better.networks import NETWORKS
from benchmarks.better.report import OURS, compared, markdown, picture
from benchmarks.tables import thinned
from toolchain.train.data import open_data
from toolchain.values import Preprocessing, Training

HERE: Final = Path(__file__).parent
STEPS: Final = ("plan", "match", "tune")
BATCH: Final = 64
RATE: Final = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="made by benchmarks.better.train")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as folders train/ and val/")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--speedups", nargs="+", type=float, default=[4.0, 2.0, 8.0])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--train", type=int, default=1000, help="training images of each class (1000)")
    parser.add_argument("--variants", nargs="+", choices=rivals.VARIANTS, default=list(rivals.VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("build/better"))
    parser.add_argument("--results", type=Path, default=HERE, help="folder of results.json (this one)")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    setting = {"epochs": flags.epochs, "train": flags.train, "batch_size": BATCH, "lr": RATE}
    results = Results(flags.results / "results.json", setting)
    for name in flags.networks:
        contest = Contest.of(name, flags.models, flags.data, flags.out)
        results.note(name, json.loads((flags.models / f"{name}.json").read_text()))
        for speedup in flags.speedups:
            if "plan" in flags.steps:
                plan(contest, speedup, results)
            if "match" in flags.steps:
                match(contest, speedup, flags.variants, results)
            if "tune" in flags.steps:
                tune(contest, speedup, flags, results)
    return 0


class Results:
    """The record of all that was done, written after every step."""

    def __init__(self, path: Path, setting: dict[str, Any]) -> None:
        self.path = path
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get("setting") != setting:
            known = {"setting": setting, "networks": {}}
        self.record: dict[str, Any] = known

    def note(self, name: str, training: dict[str, Any]) -> None:
        """The network as it came."""
        self.record["networks"].setdefault(name, {"cases": {}})["trained"] = training

    def case(self, name: str, speedup: float) -> dict[str, Any]:
        """What is known of a network at a speed-up."""
        cases = self.record["networks"][name]["cases"]
        found: dict[str, Any] = cases.setdefault(f"{speedup:g}", {"plan": None, "match": {}, "tuned": []})
        return found

    def write(self) -> None:
        """Replace the record, its table and its picture."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(self.record, indent=1) + "\n")
        draft.replace(self.path)
        self.path.with_suffix(".md").write_text(markdown(self.record))
        self.path.with_suffix(".svg").write_text(picture(self.record))


def plan(contest: Contest, speedup: float, results: Results) -> None:
    """Edgefit's plan."""
    case = results.case(contest.name, speedup)
    if case["plan"] is None:
        case["plan"] = contest.plan(speedup)
        results.write()
        print(contest.name, speedup, json.dumps(case["plan"]), flush=True)


def match(contest: Contest, speedup: float, variants: Sequence[str], results: Results) -> None:
    """torch-pruning's cuts as slow as that plan's network."""
    case, known = results.case(contest.name, speedup), {}
    if contest.name == "resnet20" and "failure" not in results.record["networks"][contest.name]:
        results.record["networks"][contest.name]["failure"] = contest.failure()
    for variant in variants:
        if variant not in case["match"]:
            case["match"][variant] = contest.match(speedup, variant, known)
            results.write()
            print(contest.name, speedup, variant, json.dumps(case["match"][variant]), flush=True)


def tune(contest: Contest, speedup: float, flags: argparse.Namespace, results: Results) -> None:
    """Fine-tune Edgefit's network and all that are as slow."""
    case = results.case(contest.name, speedup)
    folder = thinned(flags.data, flags.out.absolute() / f"data-{flags.train}", flags.train, 10**6)
    inputs = contest.run.program.inputs
    data = open_data(str(folder), preprocessing=Preprocessing(), program_inputs=inputs)
    for seed in flags.seeds:
        equal = [v for v in compared(case) if v in flags.variants]
        for who in (OURS, *equal):
            if any((t["who"], t["seed"]) == (who, seed) for t in case["tuned"]):
                continue
            program = (
                contest.ours(speedup) if who == OURS else contest.theirs(who, case["match"][who]["percent"])
            )
            training = Training(epochs=flags.epochs, batch_size=BATCH, lr=RATE, seed=seed)
            found = tuned(contest, program, data, training, flags.out / "training")
            case["tuned"].append({"who": who, "seed": seed, **found})
            results.write()
            print(contest.name, speedup, json.dumps(case["tuned"][-1]), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
