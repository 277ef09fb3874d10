"""Which schedule makes weights zero best, and does the network's history matter?

    python -m benchmarks.methods.sparsity --data cifar10 [--seeds 0 1]

A small VGG (`vgg.py`), 80 to 95 % of its weights made zero by and by in so many epochs of training, as
`compress --sparsity S --sparsity-schedule NAME --distil-weight 0` does it, by the same function; nothing is
exported or timed. Three histories: `fresh` (random weights: all the training there is happens while weights
go), `scratch` (trained on the same few images before), `pretrained` (trained on many images of the same
kind). Dense networks of the same history and epochs are the yardstick. Schedules called `half, then ...`
train the fresh network for the first half of the epochs, as papers do that compare with pruning afterwards.
sparsity.json, .md and .svg are replaced after every run; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.methods.sparsity_report import markdown, picture
from benchmarks.methods.vgg import fresh, images, trained
from benchmarks.tables import add, few, opened
from toolchain import registry
from toolchain.contracts import Data, Schedule, Silent
from toolchain.load.opening import load
from toolchain.program.cost import layers
from toolchain.train.constraint import Sparse
from toolchain.train.loop import fine_tune
from toolchain.train.metric import resolve
from toolchain.values import Program, Training

HERE = Path(__file__).parent
NAMES = ("one-shot", "iterative", "agp", "one-cycle")
HISTORIES = ("fresh", "pretrained", "scratch")
HALF = "half, then "
LR = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train/ and val/, 32 x 32, 10 classes"
    )
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--histories", nargs="+", choices=HISTORIES, default=list(HISTORIES))
    parser.add_argument("--epochs", type=int, default=5, help="in which weights go (5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=150, help="training images of each class (150)")
    parser.add_argument("--val", type=int, default=100, help="validation images of each class (100)")
    parser.add_argument("--before", type=int, default=20, help="epochs on these images, history scratch (20)")
    parser.add_argument(
        "--corpus", type=int, default=1000, help="images of each class, history pretrained (1000)"
    )
    parser.add_argument("--corpus-epochs", type=int, default=8, help="epochs on them (8)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("build/sparsity"))
    flags = parser.parse_args()
    names = ("epochs", "train", "val", "before", "corpus", "corpus_epochs", "batch_size")
    setting = {name: getattr(flags, name) for name in names}
    results = HERE / "sparsity.json"
    record = opened(results, setting)
    data = images(few(flags))
    done = {(run["history"], run["schedule"], run["sparsity"], run["seed"]) for run in record["runs"]}
    for seed in flags.seeds:
        for history in flags.histories:
            for schedule, share in _cells(history, flags.sparsities):
                if (history, schedule, share, seed) not in done:
                    start = _start(flags, history, data, seed)
                    run = {"history": history, "schedule": schedule, "sparsity": share, "seed": seed}
                    run |= one(flags, start, data, schedule, share, seed)
                    add(results, record, run, markdown, picture)
    return 0


def _cells(history: str, shares: list[float]) -> list[tuple[str, float]]:
    """What is run from this history: the dense yardstick, then schedules at every sparsity."""
    names = {
        "fresh": (*NAMES, HALF + "one-shot", HALF + "agp"),
        "pretrained": NAMES,
        "scratch": ("agp", "one-cycle"),
    }
    return [("dense", 0.0), *((name, share) for share in shares for name in names[history])]


def _start(flags: argparse.Namespace, history: str, few: Data, seed: int) -> Program:
    """The network that weights are taken from; the trained ones are the same for all seeds."""
    if history == "fresh":
        return fresh(seed)
    if history == "scratch":
        path = flags.out / f"vgg-{flags.train}-{flags.before}.pt2"
        return load(trained(path, few, epochs=flags.before))
    path = flags.out / f"vgg-{flags.corpus}-{flags.corpus_epochs}.pt2"
    if not path.exists():
        trained(path, images(few(flags, flags.corpus)), epochs=flags.corpus_epochs)
    return load(path)


def schedule_of(name: str) -> Schedule:
    """A schedule of the product, or one that begins in the middle of the training."""
    known: Schedule = registry.find("toolchain.prune.schedules", "SCHEDULE", name.removeprefix(HALF))
    if not name.startswith(HALF):
        return known
    return Schedule(
        name=name,
        summary="nothing in the first half",
        removed=lambda t: 0.0 if t < 0.5 else known.removed(2 * t - 1),
    )


def one(
    flags: argparse.Namespace, start: Program, data: Data, schedule: str, share: float, seed: int
) -> dict[str, Any]:
    """One training in which weights go: top-1 after every epoch, and how many weights are zero in the end."""
    weights = dict(start.module.named_parameters())
    names = list(dict.fromkeys(layer.weight for layer in layers(start) if layer.weight in weights))
    folder = flags.out / "training"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    tuned = fine_tune(
        start,
        teacher=None,
        data=data,
        metric=resolve("top1"),
        training=Training(
            epochs=flags.epochs, lr=LR, batch_size=flags.batch_size, distil_weight=0.0, seed=seed
        ),
        folder=folder,
        progress=Silent(),
        constraint=None if schedule == "dense" else Sparse(names, share, schedule_of(schedule)),
    )
    left = [tuned.program.module.get_parameter(name).detach() for name in names]
    return {
        "last": tuned.history[-1].metric,
        "best": tuned.best_value,
        "epochs": [epoch.metric for epoch in tuned.history],
        "zeros": sum(int((w == 0).sum()) for w in left) / sum(w.numel() for w in left),
        "cpu_seconds": time.process_time() - began,
    }


if __name__ == "__main__":
    raise SystemExit(main())
