"""How well layer timings predict whole networks: random pruned variants, predicted and measured.

    python -m benchmarks.predictor.run --resnet20 resnet20_cifar10.pt2 [--only NAME ...] [--variants 30]

Each variant is made by the product itself (`benchmarks/predictor/variants.py`) and measured in every runtime
and precision of the host, in turns with all others. The prediction is the planner's: layer timings, the
measured original and one narrow network measured beside it; no variant's measurement enters it.
torchvision's networks have random weights and 224 x 224 inputs. Files and measurements are kept in --work;
results.json, results.md and results.svg are replaced after every network; what is in --work is not made or
measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from benchmarks.held.run import NETWORKS, untrained
from benchmarks.predictor.picture import markdown, picture
from benchmarks.predictor.variants import Counts, drawn, files, measured, opened
from toolchain.baseline import Baseline
from toolchain.prune.plan import levels
from toolchain.resources import Shape, shape_of
from toolchain.run import Combination, Run
from toolchain.timing import planned_latency
from toolchain.values import Artifact, Measurement

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--resnet20", type=Path, required=True, help="the trained ResNet-20 (.pt2)")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--variants", type=int, default=30)
    parser.add_argument("--work", type=Path, default=Path("build/predictor"))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "results.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in flags.only:
        work = flags.work / name
        work.mkdir(parents=True, exist_ok=True)
        model = flags.resnet20 if name == "resnet20" else untrained(name, flags.work)
        record[name] = network(opened(model, work), flags.variants)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
        path.with_suffix(".svg").write_text(picture(record), encoding="utf-8")


def network(run: Run, count: int) -> list[Mapping[str, Any]]:
    """Results for every runtime and precision."""
    shape = shape_of(run)
    align = max(runtime.align for runtime in run.target.runtimes)
    variants = drawn(run, shape, count, align)
    combinations: list[Combination] = [(r.name, p) for r in run.target.runtimes for p in r.precisions]
    made = []
    for number, counts in enumerate(variants):
        made.append(files(run, counts, combinations))
        print(f"{run.program.name}: files of {number} of {count} variants", flush=True)
    found = []
    for combination in combinations:
        times = measured(run, [artifacts[combination] for artifacts in made])
        found.append(compared(run, shape, combination, made[0][combination], variants, times))
        print(*(f"{key} {value}" for key, value in list(found[-1].items())[:7]), sep="   ", flush=True)
    return found


def compared(
    run: Run,
    shape: Shape,
    combination: Combination,
    original: Artifact,
    variants: Sequence[Counts],
    times: Sequence[Measurement],
) -> Mapping[str, Any]:
    """Predictions against measurements; the original, which calibrates, is left out of the errors."""
    align = run.runtime(combination[0]).align
    ladders = {group.name: levels(group, align) for group in run.channels.groups}
    known = {"measurements": {combination: times[0]}, "artifacts": {combination: original}}
    whole = cast(Baseline, SimpleNamespace(**known))
    latency = planned_latency(run, shape, combination, whole, ladders)
    actual = np.array([m.p50_ms for m in times])
    predicted = np.array([latency.ms_of_counts(counts) for counts in variants])
    errors = predicted[1:] / actual[1:] - 1
    ranks = [np.argsort(np.argsort(values[1:])) for values in (predicted, actual)]
    return {
        "runtime": combination[0],
        "precision": combination[1],
        "mape_percent": round(100 * float(np.abs(errors).mean()), 2),
        "worst_percent": round(100 * float(np.abs(errors).max()), 2),
        "bias_percent": round(100 * float(errors.mean()), 2),
        "rank_correlation": round(float(np.corrcoef(*ranks)[0, 1]), 4),
        "whole_ms": round(float(actual[0]), 4),
        "measured_ms": [round(float(ms), 4) for ms in actual],
        "low_ms": [round(m.p50_low_ms, 4) for m in times],
        "high_ms": [round(m.p50_high_ms, 4) for m in times],
        "predicted_ms": [round(float(ms), 4) for ms in predicted],
        "conditions": asdict(times[0].conditions),
        "variants": [dict(counts) for counts in variants],
    }


if __name__ == "__main__":
    main()
