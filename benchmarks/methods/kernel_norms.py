"""The l1/l2 pseudo-norm of kernels against their plain l1 and l2 norms, under the same rule.

    python -m benchmarks.methods.kernel_norms --data cifar10 [--seeds 0 1]

A small VGG (`vgg.py`), trained on many images, learns on under each penalty as `--method l1l2` learns, by the
same code: after every epoch the kernels that hold no more than 1 % of the sum of norms are zeroed and stay
zero. Strengths are given as what the penalty is worth at the start, in nats, so that the norms are pressed
equally hard. No budget, no fine-tuning, and every epoch is a point: top-1 and what is left.
kernel_norms.json, .md and .svg are replaced after every run; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.methods.panels import Panel, svg
from benchmarks.methods.sparsity_report import doubt
from benchmarks.methods.vgg import images, trained
from benchmarks.tables import add, few, opened
from toolchain.contracts import Data, Silent
from toolchain.learning import lesson_of
from toolchain.load.opening import load
from toolchain.program.channels import analyse
from toolchain.prune.tables import Limit
from toolchain.resources import shape_of
from toolchain.run import Run
from toolchain.train.learners.l1l2 import LEARNER, Kernels
from toolchain.train.learning import learn
from toolchain.train.lesson import Lesson
from toolchain.train.metric import evaluate, program_runner, resolve
from toolchain.train.pseudo_norm import pseudo_norm
from toolchain.values import Learning, Program, Training

HERE = Path(__file__).parent
SETTING = ("epochs", "train", "val", "corpus", "corpus_epochs", "batch_size")


def l1(norms: Tensor) -> Tensor:
    """The sum of norms [kernels] (0-d)."""
    return norms.sum()


def l2(norms: Tensor) -> Tensor:
    """The length of norms [kernels] (0-d)."""
    return norms.square().sum().sqrt()


NORMS: Mapping[str, Callable[[Tensor], Tensor]] = {"l1/l2": pseudo_norm, "l1": l1, "l2": l2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/ of 32 x 32")
    parser.add_argument("--nats", type=float, nargs="+", default=[0.1, 1, 10], help="worth at the start")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=150, help="training images of each class (150)")
    parser.add_argument("--val", type=int, default=100, help="validation images of each class (100)")
    parser.add_argument("--corpus", type=int, default=1000, help="images of each class before (1000)")
    parser.add_argument("--corpus-epochs", type=int, default=8, help="epochs on them (8)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("build/kernel-norms"))
    flags = parser.parse_args()
    setting = {name: getattr(flags, name) for name in SETTING}
    results = HERE / "kernel_norms.json"
    record = opened(results, setting)
    out = flags.out.absolute()
    data = images(few(flags))
    path = out / f"vgg-{flags.corpus}-{flags.corpus_epochs}.pt2"
    if not path.exists():
        many = few(flags, flags.corpus)
        trained(path, images(many), epochs=flags.corpus_epochs)
    program = load(path)
    record["top1_before"] = evaluate(program_runner(program), data, resolve("top1")).value
    done = {(run["norm"], run["nats"], run["seed"]) for run in record["runs"]}
    for seed in flags.seeds:
        for norm, nats in [("none", 0.0), *((name, nats) for nats in flags.nats for name in NORMS)]:
            if (norm, nats, seed) not in done:
                add(results, record, one(flags, program, data, norm, nats, seed), markdown, picture)
    return 0


class Watched(Kernels):
    """Kernels whose zeroed share is written down after every epoch."""

    def __init__(self, lesson: Lesson, *, seen: list[float], **more: Any) -> None:
        super().__init__(lesson, **more)
        self.seen = seen

    def epoch_ends(self, module: torch.fx.GraphModule) -> None:
        """What the rule zeroes, counted."""
        super().epoch_ends(module)
        scores = [score for found in self.verdicts(module).scores.values() for score in found]
        self.seen.append(sum(score == 0 for score in scores) / len(scores))


def one(
    flags: argparse.Namespace, program: Program, data: Data, norm: str, nats: float, seed: int
) -> dict[str, Any]:
    """One training under a penalty: top-1, zeroed kernels and parameters left after every epoch."""
    lesson = _lesson(program)
    start = Kernels(lesson).norms(program.module).detach()
    whole = NORMS.get(norm, l1)
    seen: list[float] = []
    begin = partial(Watched, seen=seen, norm=whole, strength=nats / float(whole(start)))
    folder = flags.out / "learning"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    found = learn(
        replace(LEARNER, begin=begin),
        lesson,
        data=data,
        metric=resolve("top1"),
        training=Training(batch_size=flags.batch_size, seed=seed),
        learning=Learning(method="l1l2", epochs=flags.epochs),
        folder=folder,
        progress=Silent(),
    )
    assert found is not None
    after = Kernels(lesson).norms(found.program.module).detach()
    return {
        "norm": norm,
        "nats": nats,
        "strength": nats / float(whole(start)),
        "seed": seed,
        "epochs": [
            {"top1": lived.metric, "zeroed": share, "params_left": lived.used[0]}
            for lived, share in zip(found.history, seen, strict=True)
        ],
        "concentration": [float(pseudo_norm(norms)) for norms in (start, after)],
        "cpu_seconds": time.process_time() - began,
    }


def _lesson(program: Program) -> Lesson:
    """What a learner is given; the limit is the network's own parameters, so that 1 is all of them."""
    channels = analyse(program)
    shape = shape_of(cast(Run, SimpleNamespace(program=program, channels=channels)))
    params = sum(p.numel() for p in program.module.parameters())
    limit = Limit(name="params", limit=params, terms=shape.terms("params"))
    return lesson_of(program, channels, shape, [limit])


def markdown(record: Mapping[str, Any]) -> str:
    """A line for each norm and strength: after the last epoch."""
    setting, runs = record["setting"], record["runs"]
    seeds = sorted({run["seed"] for run in runs})
    lines = [
        "# The l1/l2 pseudo-norm of kernels against l1 and l2",
        "",
        f"A VGG of 193,178 parameters, {record['top1_before']:.1f} % before (trained on {setting['corpus']}"
        f" images of each CIFAR-10 class); {setting['epochs']} epochs on {setting['train']} images of each"
        f" class in batches of {setting['batch_size']} under each penalty; after each, the kernels that hold"
        " 1 % of the sum of norms become zero and stay so. Top-1 of"
        f" {setting['val']} validation images of each class after the last epoch, without fine-tuning; means"
        f" of seeds {', '.join(map(str, seeds))}, in brackets lowest and highest. `worth`: what the penalty"
        " is at the start, in nats, by which its strength is set. `l1/l2` in the last column: the value of"
        " the pseudo-norm before and after, small where few kernels hold all."
        f" {doubt(10 * setting['val'])}",
        "",
        "![top-1 over kernels zeroed](kernel_norms.svg)",
        "",
        "| penalty | worth | top-1 | kernels zero | parameters left | l1/l2 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for norm, nats in dict.fromkeys((run["norm"], run["nats"]) for run in runs):
        mine = [run for run in runs if (run["norm"], run["nats"]) == (norm, nats)]
        ends = [run["epochs"][-1] for run in mine]
        cells = [spread([100 * end[key] for end in ends]) for key in ("zeroed", "params_left")]
        before, after = (sum(run["concentration"][n] for run in mine) / len(mine) for n in (0, 1))
        top = spread([end["top1"] for end in ends])
        lines.append(f"| {norm} | {nats:g} | {top} | {' | '.join(cells)} | {before:.1f} -> {after:.1f} |")
    made = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in setting.items())
    command = f"python -m benchmarks.methods.kernel_norms --data DIR {made}"
    return "\n".join([*lines, "", f"Made by `{command} --seeds {' '.join(map(str, seeds))}`.", ""])


def spread(values: Sequence[float]) -> str:
    """The mean, and lowest and highest where there are several."""
    ends = f" ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.1f} %{ends}"


def picture(record: Mapping[str, Any]) -> str:
    """Top-1 over zeroed kernels, a panel a strength, a point an epoch."""
    panels = []
    for nats in sorted({run["nats"] for run in record["runs"]} - {0.0}):
        runs = [run for run in record["runs"] if run["nats"] == nats]
        series = {
            norm: [(e["zeroed"], e["top1"]) for run in runs if run["norm"] == norm for e in run["epochs"]]
            for norm in NORMS
        }
        panels.append(
            Panel(
                title=f"penalty worth {nats:g} nats at the start",
                x="kernels that are zero",
                y="top-1 (%) after each epoch",
                series={norm: points for norm, points in series.items() if points},
                level=("before", record["top1_before"]),
                reads="{:.0%}".format,
            )
        )
    return svg(panels) if panels else ""


if __name__ == "__main__":
    raise SystemExit(main())
