"""What rescaling and re-estimated statistics are worth right after a cut, before any fine-tuning.

    python -m benchmarks.resnet20.repair --model resnet20_cifar10.pt2 --data cifar10

Every group loses 30 % of its channels (those its criterion scores lowest; for `random` the mean over seeds);
the same validation samples judge every variant. Writes repair.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from toolchain import registry
from toolchain.closing import Choice
from toolchain.contracts import Data, Evidence, Silent
from toolchain.load import load
from toolchain.program.channels import analyse
from toolchain.program.rewrite import apply
from toolchain.repair import repaired
from toolchain.run import Run
from toolchain.train.data import open_data
from toolchain.train.metric import evaluate, program_runner, resolve
from toolchain.values import Budget, Channels, Program, PrunePlan, Request

HERE = Path(__file__).parent
SHARE = 0.3
SEEDS = (0, 1, 2)
SCORED = 256
VARIANTS: Mapping[str, tuple[str, bool]] = {
    "neither": ("none", False),
    "rescale linear": ("linear", False),
    "rescale all": ("all", False),
    "reestimate": ("none", True),
    "rescale linear, reestimate": ("linear", True),
    "rescale all, reestimate": ("all", True),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int, default=2000, help="validation samples (2000)")
    flags = parser.parse_args()
    request = Request(model=flags.model, target="host", out=Path("none"), budget=Budget(), data=flags.data)
    program = load(flags.model)
    channels = analyse(program)
    data = open_data(flags.data, preprocessing=request.preprocessing, program_inputs=program.inputs)
    metric = resolve("top1")

    def top1(network: Program) -> float:
        return evaluate(program_runner(network), data, metric, limit=flags.samples).value

    record = {"share": SHARE, "samples": flags.samples, "original": top1(program), "top1": {}}
    for name in ("taylor", "magnitude", "random"):
        found = {variant: [] for variant in VARIANTS}
        for seed in SEEDS if name == "random" else (0,):
            keep = kept(name, program, channels, data, seed)
            cut = apply(program, channels, keep)
            plan = PrunePlan(program="", criterion=name, keep=keep)
            for variant, (rescale, reestimate) in VARIANTS.items():
                asked = replace(request, rescale=rescale, reestimate=reestimate)
                run = Run(
                    request=asked,
                    program=program,
                    channels=channels,
                    data=data,
                    metric=metric,
                    target=None,
                    device=None,
                    stages=None,
                    material=None,
                    progress=Silent(),
                )
                choice = Choice(
                    run=run, plan=plan, program=cut, combination=("", "fp32"), reason="", candidates=()
                )
                found[variant].append(top1(repaired(run, choice).program))
        record["top1"][name] = {v: sum(values) / len(values) for v, values in found.items()}
        print(name, json.dumps(record["top1"][name]), flush=True)
    (HERE / "repair.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0


def kept(
    name: str, program: Program, channels: Channels, data: Data, seed: int
) -> dict[str, tuple[int, ...]]:
    """The units of each group that stay: the 70 % that the criterion scores highest."""
    criterion = registry.find("toolchain.prune.criteria", "CRITERION", name, kind="criterion")
    evidence = Evidence(batches=(data.calibration(SCORED),), seed=seed)
    scores = criterion.score(program, channels, evidence)
    keep = {}
    for group in channels.groups:
        count = max(group.size - round(SHARE * group.size), group.minimum)
        ranked = sorted(range(group.size), key=lambda u: -scores[group.name][u])
        keep[group.name] = tuple(sorted(ranked[:count]))
    return keep


if __name__ == "__main__":
    raise SystemExit(main())
