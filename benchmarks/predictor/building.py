"""How long a full latency table takes to build, interrupted or not, and to plan with.

    python -m benchmarks.predictor.building --network resnet50 [--work build/predictor]

From an empty cache folder: the table of every runtime and precision of this machine at the widths that the
planner may choose; the first is interrupted after a third of its layers and goes on. Then again with what is
known, and one plan at half of the sum of the kernels. building.json and building.md are replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.held.run import untrained
from benchmarks.predictor.variants import opened
from toolchain.contest import Contender, Ground, plan_under
from toolchain.contracts import Silent
from toolchain.damage import axes_of, measure_damages
from toolchain.latency.predict import LatencyModel
from toolchain.latency.table import LatencyTable
from toolchain.resources import PlannedLatency, shape_of
from toolchain.run import Combination, Run
from toolchain.timing import layer_table
from toolchain.values import Budget

HERE = Path(__file__).parent


class Interrupted(Exception):
    """What the impatient progress ends a build with."""


class Impatient(Silent):
    """Ends the build at a third of the layers."""

    def step(self, done: int, total: int, note: str = "") -> None:
        if total > 1 and 3 * done >= total:
            raise Interrupted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--work", type=Path, default=Path("build/predictor"))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    flags.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EDGEFIT_CACHE"] = cache
        run = opened(untrained(flags.network, flags.work), flags.work / flags.network)
        found = [built(run, (r.name, p)) for r in run.target.runtimes for p in r.precisions]
    conditions = asdict(run.device.conditions(run.target.runtimes[0], 1))
    record = {"network": flags.network, "tables": found, "conditions": conditions}
    (HERE / "building.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (HERE / "building.md").write_text(markdown(record), encoding="utf-8")


def built(run: Run, combination: Combination) -> Mapping[str, Any]:
    """One table: seconds of the interrupted build, of the rest, again from the cache, and of a plan."""
    shape = shape_of(run)
    damages = measure_damages(run, shape)
    align = run.runtime(combination[0]).align
    ladders = {axis.name: axis.levels for axis in axes_of(run, damages, align)}

    def build(asked: Run) -> LatencyTable | None:
        try:
            return layer_table(asked, shape, combination, ladders)
        except Interrupted:
            return None

    first, nothing = timed(lambda: build(replace(run, progress=Impatient())))
    rest, table = timed(lambda: build(run))
    again, _ = timed(lambda: build(run))
    assert nothing is None
    assert table is not None
    kernels = sum(table.layer_ms(a, a.in_channels, a.out_channels, a.groups) for a in shape.layers)
    kernels_alone = LatencyModel(table=table)
    alone = PlannedLatency(model=kernels_alone, shape=shape)
    half = replace(run, request=replace(run.request, budget=Budget(ms=kernels / 2)))
    contender = Contender(combination=combination, align=align, model=alone, damage=0.0)
    planning, solution = timed(lambda: plan_under(half, contender, Ground(shape=shape, damages=damages)))
    found = {
        "runtime": combination[0],
        "precision": combination[1],
        "layers_timed": sum(map(len, table.points.values())),
        "shapes": len(table.points),
        "interrupted_s": round(first, 1),
        "rest_s": round(rest, 1),
        "again_s": round(again, 1),
        "plan_s": round(planning, 2),
        "gap": solution.gap,
        "kernels_ms": round(kernels, 3),
    }
    print(found, flush=True)
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds, and what came of it."""
    start = time.monotonic()
    found = work()
    return time.monotonic() - start, found


def markdown(record: Mapping[str, Any]) -> str:
    """One row a runtime and precision."""
    total = sum(t["interrupted_s"] + t["rest_s"] for t in record["tables"])
    lines = [
        f"# Building the latency tables of {record['network']}",
        "",
        f"{total:.0f} s for all, one thread of {record['conditions']['cpu']}, from an empty cache. Each build"
        " was interrupted at a third and went on where it stopped.",
        "",
        "| runtime | precision | shapes | layers timed | until interrupted s | rest s | again, from cache s |"
        " plan s | gap |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {t['runtime']} | {t['precision']} | {t['shapes']} | {t['layers_timed']} |"
        f" {t['interrupted_s']:.0f} | {t['rest_s']:.0f} | {t['again_s']:.1f} | {t['plan_s']:.1f} |"
        f" {100 * (t['gap'] or 0):.2f} % |"
        for t in record["tables"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
