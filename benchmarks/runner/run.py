"""The C runner against Python on the same files: does it matter which of the two measures?

    python -m benchmarks.runner.run FILE.onnx FILE.tflite ... [--rounds 20] [--out benchmarks/runner]

A round measures every file in a fresh process of each; the next round has them in the other order.
The ratio is taken within a round and its median given with the 95 % interval of order statistics.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets._shared.conditions import read_conditions
from targets._shared.driving import Driver, run_job
from targets._shared.runner import Job, Model, runner, version
from toolchain.artifacts import place
from toolchain.latency.intervals import median_interval
from toolchain.plain import to_plain

RUNTIME_OF = {".onnx": "onnxruntime", ".tflite": "litert"}
RUNS, SECONDS, WARMUP = 200, 1.0, 20


def trial(path: Path, driver: Driver) -> Mapping[str, Any]:
    """One trial of a file in a fresh process of the runner or of Python."""
    model = Model(runtime=RUNTIME_OF[path.suffix], path=str(path))
    job = Job(models=(model,), most=RUNS, seconds=SECONDS, warmup=WARMUP, warmup_seconds=SECONDS)
    records = run_job(job, driver=driver, silence_seconds=120, on_record=lambda _: None)
    return next(record for record in records if record["type"] == "trial")


def compared(path: Path, rounds: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """What the rounds of one file say. `between_us` is what the runner does from one run to the next."""
    ratios = [statistics.median(c["wall_ns"]) / statistics.median(python["wall_ns"]) for c, python in rounds]
    ratio = median_interval(ratios)
    between = [(c["window_ns"] - sum(c["wall_ns"])) / c["runs"] / 1e3 for c, _ in rounds]
    return {
        "file": path.name,
        "runtime": RUNTIME_OF[path.suffix],
        "rounds": len(rounds),
        "runner_ms": statistics.median(statistics.median(c["wall_ns"]) for c, _ in rounds) / 1e6,
        "python_ms": statistics.median(statistics.median(p["wall_ns"]) for _, p in rounds) / 1e6,
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "between_us": statistics.median(between),
    }


def overhead_ns() -> int:
    """What the runner's timed loop sees where an inference does nothing, from its self-test."""
    said = subprocess.run([runner(), "--self-test"], capture_output=True, text=True, check=True).stdout
    found: int = json.loads(said)["overhead_ns"]
    return found


def table(record: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# The C runner against Python",
        "",
        f"Made by `python -m benchmarks.runner.run FILES` on {record['conditions']['cpu']}, one thread.",
        "A round measures a file in a fresh process of each; the ratio is of medians within a round, with",
        f"its 95 % interval. Inside a timed run the runner adds {record['overhead_ns']} ns; between two runs",
        "passes what the last column says.",
        "",
        "| file | rounds | runner | Python | ratio | difference | between runs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["files"]:
        apart = 1e3 * (row["python_ms"] - row["runner_ms"])
        lines.append(
            f"| {row['file']} | {row['rounds']} | {row['runner_ms']:.4f} ms | {row['python_ms']:.4f} ms"
            f" | {row['ratio']:.4f} ({row['ratio_low']:.4f}-{row['ratio_high']:.4f})"
            f" | {apart:.1f} us | {row['between_us']:.1f} us |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    flags = parser.parse_args()
    runner()
    rounds: dict[Path, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {p: [] for p in flags.files}
    for number in range(flags.rounds):
        for path in flags.files:
            order: list[Driver] = ["runner", "python"]
            taken = {driver: trial(path, driver) for driver in order[:: -1 if number % 2 else 1]}
            rounds[path].append((taken["runner"], taken["python"]))
    found = [compared(path, pairs) for path, pairs in rounds.items()]
    conditions = read_conditions(device="host", runtime="both", distribution="onnxruntime", threads=1)
    record = {
        "schema": "edgefit.benchmark.runner/1",
        "runner": version(),
        "overhead_ns": overhead_ns(),
        "conditions": to_plain(conditions),
        "files": found,
    }
    text = json.dumps(record, indent=2) + "\n"
    place(flags.out / "results.json", lambda p: p.write_text(text, encoding="utf-8"))
    place(flags.out / "results.md", lambda p: p.write_text(table(record), encoding="utf-8"))
    for row in found:
        print(
            f"{row['file']:28} runner {row['runner_ms']:8.4f} ms  python {row['python_ms']:8.4f} ms"
            f"  ratio {row['ratio']:.4f} ({row['ratio_low']:.4f}-{row['ratio_high']:.4f})"
            f"  between runs {row['between_us']:.2f} us"
        )


if __name__ == "__main__":
    main()
