"""The C runner against Python and LiteRT's own tool on the same files: does it matter which of them measures?

    python -m benchmarks.runner.run FILE.onnx FILE.tflite ... [--rounds 20] [--out benchmarks/runner]

A round measures every file in a fresh process of each; the next round has them in the other order.
The ratio is taken within a round and its median given with the 95 % interval of order statistics.
Python hands over tensors of onnxruntime (an IO binding), as the runner does, and arrays to LiteRT.
LiteRT's tool is `ai_edge_litert.tools.benchmark_litert_model`, the wheel's form of benchmark_model.
onnxruntime_perf_test is in no package of PyPI or Debian (onnxruntime-tools has Python scripts only).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from targets._shared.conditions import read_conditions
from targets._shared.driving import Driver, run_job
from targets._shared.runner import Job, Model, runner, version
from toolchain.artifacts import place
from toolchain.latency.intervals import median_interval
from toolchain.plain import to_plain

RUNTIME_OF = {".onnx": "onnxruntime", ".tflite": "litert"}
RUNS, SECONDS, WARMUP = 200, 0.5, 20
TOOL = "ai_edge_litert.tools.benchmark_litert_model"
Round = Mapping[str, Mapping[str, Any]]
"""What each of them said of a file: `median_ms`, `cpu_ms` (not the tool), the runner also `between_us`."""


def trial(path: Path, driver: Driver) -> Mapping[str, Any]:
    """One trial of a file in a fresh process of the runner or of Python."""
    model = Model(runtime=RUNTIME_OF[path.suffix], path=str(path))
    job = Job(models=(model,), most=RUNS, seconds=SECONDS, warmup=WARMUP, warmup_seconds=SECONDS)
    records = run_job(job, driver=driver, silence_seconds=120, on_record=lambda _: None)
    record = next(record for record in records if record["type"] == "trial")
    found = {
        "median_ms": statistics.median(record["wall_ns"]) / 1e6,
        "cpu_ms": statistics.median(record["cpu_ns"]) / 1e6,
    }
    if driver == "runner":
        found["between_us"] = (record["window_ns"] - sum(record["wall_ns"])) / record["runs"] / 1e3
    return found


def by_tool(path: Path) -> Mapping[str, Any]:
    """The same with LiteRT's tool, on the core that the others use; it tells hundredths of a millisecond."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        asked = [f"--model={path}", f"--num_runs={RUNS}", f"--warmup_runs={2 * WARMUP}"]
        command = [sys.executable, "-m", TOOL, *asked, "--num_threads=1", f"--result_json={out}"]
        core = {max(os.sched_getaffinity(0))}
        subprocess.run(
            command, check=True, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, core)
        )
        return {"median_ms": json.loads(out.read_text(encoding="utf-8"))["latency"]["median_ms"]}


def compared(path: Path, rounds: Sequence[Round]) -> dict[str, Any]:
    """What the rounds of one file say. `between_us` is what the runner does from one run to the next."""
    found: dict[str, Any] = {"file": path.name, "runtime": RUNTIME_OF[path.suffix], "rounds": len(rounds)}
    for name in rounds[0]:
        found[f"{name}_ms"] = statistics.median(taken[name]["median_ms"] for taken in rounds)
        if name != "runner":
            ratios = [taken["runner"]["median_ms"] / taken[name]["median_ms"] for taken in rounds]
            found[f"to_{name}"] = to_plain(median_interval(ratios))
    cpu = [taken["runner"]["cpu_ms"] / taken["python"]["cpu_ms"] for taken in rounds]
    found["cpu_to_python"] = to_plain(median_interval(cpu))
    found["between_us"] = statistics.median(taken["runner"]["between_us"] for taken in rounds)
    return found


def overhead_ns() -> int:
    """What the runner's timed loop sees where an inference does nothing, from its self-test."""
    said = subprocess.run([runner(), "--self-test"], capture_output=True, text=True, check=True).stdout
    found: int = json.loads(said)["overhead_ns"]
    return found


ABOUT = """# The C runner against Python and LiteRT's tool

Made by `python -m benchmarks.runner.run FILES` on {cpu}, one thread.
A round measures a file in a fresh process of each; the ratio is of medians within a round, with its 95 %
interval, of wall-clock time and of processor time (cpu), which what else runs disturbs less. Python hands
over tensors of onnxruntime (an IO binding), as the runner does: with arrays, which are converted in every
call, it took 10 us more (337 against 327 us for ResNet-20 in int8, in turns in one process). LiteRT's tool
is `litert-benchmark` of its wheel, which tells hundredths of a millisecond. onnxruntime_perf_test is in no
package of PyPI or Debian.

The overhead on an inference, what a timed run holds besides it, is {overhead} ns (`--self-test`: a run that
does nothing). What passes between two runs (the clock of processor time, bookkeeping) is in no figure; it is
the last column.

| file | rounds | runner | Python | runner / Python | cpu | LiteRT's tool | runner / tool | between runs |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def table(record: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    lines = []
    for row in record["files"]:
        tool = f"{row['tool_ms']:.2f} ms" if "tool_ms" in row else "-"
        times = f"{row['runner_ms']:.4f} ms | {row['python_ms']:.4f} ms | {ratio(row['to_python'])}"
        times += f" | {ratio(row['cpu_to_python'])}"
        rest = f"{tool} | {ratio(row.get('to_tool'))} | {row['between_us']:.1f} us"
        lines.append(f"| {row['file']} | {row['rounds']} | {times} | {rest} |\n")
    about = ABOUT.format(cpu=record["conditions"]["cpu"], overhead=record["overhead_ns"])
    return about + "".join(lines)


def ratio(found: Mapping[str, float] | None) -> str:
    """A ratio with its interval."""
    return "-" if found is None else f"{found['value']:.4f} ({found['low']:.4f}-{found['high']:.4f})"


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    flags = parser.parse_args()
    runner()
    rounds: dict[Path, list[Round]] = {path: [] for path in flags.files}
    for number in range(flags.rounds):
        for path in flags.files:
            asked: dict[str, Callable[[Path], Mapping[str, Any]]] = {
                "runner": lambda p: trial(p, "runner"),
                "python": lambda p: trial(p, "python"),
            }
            if path.suffix == ".tflite":
                asked["tool"] = by_tool
            order = list(asked)[:: -1 if number % 2 else 1]
            rounds[path].append({name: asked[name](path) for name in order})
    conditions = read_conditions(device="host", runtime="both", distribution="onnxruntime", threads=1)
    record = {
        "schema": "edgefit.benchmark.runner/2",
        "runner": version(),
        "overhead_ns": overhead_ns(),
        "conditions": to_plain(conditions),
        "files": [compared(path, taken) for path, taken in rounds.items()],
    }
    text = json.dumps(record, indent=2) + "\n"
    place(flags.out / "results.json", lambda p: p.write_text(text, encoding="utf-8"))
    place(flags.out / "results.md", lambda p: p.write_text(table(record), encoding="utf-8"))
    print(table(record))


if __name__ == "__main__":
    main()
