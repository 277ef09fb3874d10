"""Does the gate raise false alarms, and does it catch slow-downs of known size? In pieces that resume.

    python -m benchmarks.gate.run truth --model resnet20.onnx      # how much slower the slower networks are
    python -m benchmarks.gate.run aa --model resnet20.onnx --runs 200
    python -m benchmarks.gate.run aa-load --model resnet20.onnx --runs 200
    python -m benchmarks.gate.run ab-5 --model resnet20.onnx --runs 100
    python -m benchmarks.gate.report

A piece appends a line for every run to `benchmarks/gate/raw/PIECE.jsonl`, with the medians of all its trials,
and goes on where it was interrupted. In every run the naive comparison is made as well: the same number of
trials of one model, then of the other, and the medians compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.gate.slower import add_work
from targets.host import TARGET
from toolchain.artifacts import describe
from toolchain.contracts import Silent
from toolchain.gate.comparison import PAIRS, gate
from toolchain.gate.record import GateRequest
from toolchain.gate.sides import Wishes
from toolchain.latency.paired import ratio_interval
from toolchain.values import Artifact, Measurement

RAW: Final = Path(__file__).parent / "raw"
ADDED: Final = {"ab-3": (7,), "ab-5": (0, 7), "ab-10": (3, 7)}
"""Which convolutions are there twice: about 3, 5 and 10 % of ResNet-20."""
AA_THRESHOLD: Final = 0.05
BELOW: Final = 0.01
"""How far the threshold of an A/B run is below the true slow-down."""
TRUTH_PAIRS: Final = 250


def main() -> None:
    """Run one piece."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("piece", choices=("truth", "aa", "aa-load", *ADDED))
    parser.add_argument("--model", type=Path, required=True, help="an ONNX file with one image input")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="time of one gate run")
    parser.add_argument("--work", type=Path, default=Path("gate.work"), help="where slower networks are put")
    flags = parser.parse_args()
    RAW.mkdir(exist_ok=True)
    flags.work.mkdir(exist_ok=True)
    # Noise measured by hand elsewhere must not move the thresholds of this benchmark.
    os.environ["EDGEFIT_CACHE"] = str(flags.work / "cache")
    if flags.piece == "truth":
        measure_truth(flags.model, flags.work)
        return
    done = len(read(flags.piece))
    for number in range(done, flags.runs):
        with load(number) if flags.piece == "aa-load" else contextlib.nullcontext():
            entry = one_run(flags, number)
        append(flags.piece, entry)
        print(
            flags.piece,
            number,
            entry["verdict"],
            f"{entry['ratio']:.4f} {entry['seconds']:.1f} s",
            flush=True,
        )


def one_run(flags: argparse.Namespace, number: int) -> dict[str, Any]:
    """One gate run and one naive comparison of the same two files."""
    slower = flags.work / f"{flags.piece}.onnx"
    if flags.piece in ADDED:
        true = json.loads((RAW / "truth.json").read_text())[flags.piece]["cpu"]["value"]
        threshold = true - 1 - BELOW
        add_work(flags.model, slower, ADDED[flags.piece])
    else:
        threshold = AA_THRESHOLD
        slower.write_bytes(flags.model.read_bytes())
    request = GateRequest(
        candidate=slower,
        baseline=str(flags.model),
        wishes=Wishes(target=TARGET),
        max_regression=threshold,
        seconds=flags.seconds,
    )
    before = os.getloadavg()[0]
    record = gate(request, Silent())
    check = record["checks"][0]
    pairs = [course["looks"][-1]["pairs"] for course in record["courses"]]
    new, old = (measured(slower, pairs[0]), measured(flags.model, pairs[0]))
    return {
        "run": number,
        "created": record["created"],
        "verdict": record["verdict"],
        "threshold": threshold,
        "ratio": check["value"],
        "low": check["low"],
        "high": check["high"],
        "detail": check["detail"],
        "seconds": round(record["seconds"], 2),
        "pairs": pairs,
        "load": before,
        "candidate": trials(record["candidate"]["measurement"]),
        "baseline": trials(record["baseline"]["measurement"]),
        "naive": {
            "wall": new.p50_ms / old.p50_ms,
            "cpu": None if not (new.cpu_p50_ms and old.cpu_p50_ms) else new.cpu_p50_ms / old.cpu_p50_ms,
        },
        "driver": record["candidate"]["measurement"]["conditions"]["driver"],
    }


def trials(measurement: dict[str, Any]) -> dict[str, list[float]]:
    """The raw trials: the median of each in microseconds, by wall and by CPU time."""
    wall = [statistics.median(samples) for samples in measurement["samples_ms"]]
    return {
        "wall_us": [round(1000 * ms, 2) for ms in wall],
        "cpu_us": [round(1000 * ms, 2) for ms in measurement["cpu_trials_ms"]],
    }


def measured(path: Path, count: int) -> Measurement:
    """One model alone, as a naive comparison does it."""
    sampling = replace(PAIRS, trials=count)
    return TARGET.connect().measure((artifact(path),), sampling, Silent())[0]


def artifact(path: Path) -> Artifact:
    """The file as the host's onnxruntime runs it."""
    return describe(path, format_name="onnx", runtime="onnxruntime", precision="fp32")


def measure_truth(model: Path, work: Path) -> None:
    """The true ratio of every slower network, from many pairs, as the gate measures them."""
    slower = {name: work / f"{name}.onnx" for name in ADDED}
    macs = {name: add_work(model, slower[name], ADDED[name]) for name in slower}
    sampling = replace(PAIRS, trials=TRUTH_PAIRS)
    found: dict[str, Any] = {}
    for name, path in slower.items():
        # Two by two: with more models open at once there is less cache for each, and another ratio.
        other, base = TARGET.connect().measure((artifact(path), artifact(model)), sampling, Silent())
        found[name] = {"macs_added": macs[name], "pairs": TRUTH_PAIRS}
        for clock in ("cpu", "wall"):
            logs = [_log(a, b) for a, b in zip(_trials(other, clock), _trials(base, clock), strict=True)]
            interval = ratio_interval(logs, 0.01)
            found[name][clock] = {"value": interval.value, "low": interval.low, "high": interval.high}
    (RAW / "truth.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def _trials(measurement: Measurement, clock: str) -> list[float]:
    if clock == "cpu":
        return list(measurement.cpu_trials_ms)
    return [statistics.median(samples) for samples in measurement.samples_ms]


def _log(new: float, old: float) -> float:
    from toolchain.latency.sequential import log_ratio

    return log_ratio(new, old)


@contextlib.contextmanager
def load(number: int) -> Iterator[None]:
    """A process that computes for some seconds, rests for some, and so on, while the body runs."""
    code = (
        "import random, time\nimport numpy as np\n"
        f"rng = random.Random({number})\na = np.ones((400, 400), np.float32)\n"
        "while True:\n"
        "    end = time.monotonic() + rng.uniform(0.3, 3)\n"
        "    while time.monotonic() < end: a @ a\n"
        "    time.sleep(rng.uniform(0.3, 3))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    time.sleep(random.Random(number).uniform(0, 2))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def read(piece: str) -> list[dict[str, Any]]:
    """The finished runs of a piece; a line cut short by an interruption does not count."""
    path, found = RAW / f"{piece}.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def append(piece: str, entry: dict[str, Any]) -> None:
    """One more finished run, on the disk before the next one begins."""
    path = RAW / f"{piece}.jsonl"
    whole = not path.exists() or path.read_bytes()[-1:] in (b"\n", b"")
    with path.open("a") as file:
        file.write(("" if whole else "\n") + json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
