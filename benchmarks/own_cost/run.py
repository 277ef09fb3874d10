"""What the toolchain costs beside the three exporters it uses: time and peak memory, in one run.

    python -m benchmarks.own_cost.run --model resnet20_cifar10.pt2 --data cifar10 [--repeats 3]

Bare: torch's ONNX exporter, coremltools and litert-torch, one after the other in one process, as their
documentation shows. Ours: `compress` without fine-tuning; capture, plan, apply, export, quantize and verify
count (the report's own clocks), measuring, scoring on the validation set and reading it do not. Files made
only to be measured (the original's, the rounds') are part of measuring; the ratio with them is printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
COUNTED = ("capture", "plan", "export", "verify", "deliver")
TIME_LIMIT = MEMORY_LIMIT = 1.5
BARE = """
import json, resource, sys, time, logging
start = time.monotonic()
import torch
program = torch.export.load(sys.argv[1])
inputs = program.example_inputs[0]
module, one = program.module(check_guards=False), tuple(torch.randn(1, *x.shape[1:]) for x in inputs)
begin = time.monotonic()
torch.onnx.export(module, inputs, sys.argv[2] + "/m.onnx", dynamo=True, external_data=False,
                  dynamic_shapes=tuple({0: torch.export.Dim.AUTO} for _ in inputs))
import coremltools as ct
exported = torch.export.export(module, one).run_decompositions({})
ct.convert(exported, minimum_deployment_target=ct.target.iOS17).save(sys.argv[2] + "/m.mlpackage")
import litert_torch
litert_torch.convert(module, one).export(sys.argv[2] + "/m.tflite")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
done = {"seconds": time.monotonic() - begin, "rss_mb": peak}
open(sys.argv[2] + "/done.json", "w").write(json.dumps(done))
"""
OURS = """
import json, resource, sys
from toolchain.cli import main
code = main(sys.argv[2:])
open(sys.argv[1], "w").write(json.dumps({"code": code,
    "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget-ms", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    pairs = []
    for _ in range(flags.repeats):
        bare, ours = measure_bare(flags.model), measure_ours(flags)
        pairs.append({"bare": bare, "ours": ours})
        print(json.dumps(pairs[-1]), flush=True)
    time_ratio = statistics.median(p["ours"]["seconds"] / p["bare"]["seconds"] for p in pairs)
    memory_ratio = statistics.median(p["ours"]["rss_mb"] / p["bare"]["rss_mb"] for p in pairs)
    everything = statistics.median(
        (p["ours"]["seconds"] + p["ours"]["timings"].get("candidates", 0.0)) / p["bare"]["seconds"]
        for p in pairs
    )
    record = {
        "time_ratio": time_ratio,
        "with_candidates": everything,
        "memory_ratio": memory_ratio,
        "pairs": pairs,
    }
    (HERE / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    print(
        f"time {time_ratio:.2f}x (at most {TIME_LIMIT}), memory {memory_ratio:.2f}x (at most {MEMORY_LIMIT})"
    )
    return int(time_ratio > TIME_LIMIT or memory_ratio > MEMORY_LIMIT)


def measure_bare(model: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run("-c", BARE, str(model), folder)
        found: dict[str, float] = json.loads((Path(folder) / "done.json").read_text())
    return found


def measure_ours(flags: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        done, out = Path(folder) / "done.json", Path(folder) / "out"
        words = [str(flags.model), "--data", str(flags.data), "--budget-ms", str(flags.budget_ms)]
        run("-c", OURS, str(done), "compress", *words, "--epochs", "0", "--out", str(out))
        memory = json.loads(done.read_text())
        timings = json.loads((out / "report.json").read_text())["timings"]
    return {
        "seconds": sum(timings.get(name, 0.0) for name in COUNTED),
        "rss_mb": memory["rss_mb"],
        "timings": timings,
    }


def run(*words: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


if __name__ == "__main__":
    raise SystemExit(main())
