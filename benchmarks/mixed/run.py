"""What int8 costs a trained network, and what keeping its most sensitive layers in float wins back.

    python -m benchmarks.mixed.run --data cifar10 --models resnet20_cifar10.pt2 ... [--latency]

The original in float, in int8 and in int8 with its 1, 2, 4, 8 most sensitive layers in float, in each runtime
of this machine: made, run and scored by the product's own functions. With `--latency` all files of a network
are measured in turns; without it their latency stays what it was in results.json, or not measured. Files and
measurements are kept in --work; results.json and results.md are replaced after every network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from toolchain.assembly import open_session, runner
from toolchain.contenders import ladder, quantization_damage
from toolchain.contracts import Sampling, Silent
from toolchain.pipeline import open_run
from toolchain.run import Combination, Run, build_for, measure
from toolchain.train.metric import evaluate
from toolchain.values import Artifact, Budget, Request

HERE = Path(__file__).parent
SAMPLING: Final = Sampling(trials=10, runs=50, trial_seconds=0.3)
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train/ and val/")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="trained networks (.pt2)")
    parser.add_argument("--latency", action="store_true", help="measure the files too")
    parser.add_argument("--work", type=Path, default=Path("build/mixed"))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "results.json"
    record: dict[str, list[Row]] = json.loads(path.read_text()) if path.exists() else {}
    for model in flags.models:
        out = flags.work / model.stem / "result"
        request = Request(model=model, target="host", out=out, budget=Budget(), data=flags.data)
        run = open_run(request, Silent())
        rows = network(run, record.get(model.stem, []), latency=flags.latency)
        record[model.stem] = rows
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")


def network(run: Run, before: Sequence[Row], *, latency: bool) -> list[Row]:
    """A row for every runtime and precision."""
    kept = [(), *ladder(run)]
    ways: list[tuple[Combination, tuple[str, ...]]] = []
    for runtime in run.target.runtimes:
        ways.append(((runtime.name, "fp32"), ()))
        ways += [((runtime.name, "mixed" if names else "int8"), names) for names in kept]
    files = [build_for(run, run.program, [way], names)[way] for way, names in ways]
    times: list[float | None] = [None] * len(files)
    if latency:
        times = [measured.p50_ms for measured in measure(run, files, SAMPLING)]
    old = {row["sha256"]: row["p50_ms"] for row in before}
    rows = []
    for (way, names), file, time in zip(ways, files, times, strict=True):
        rows.append(
            {
                "runtime": way[0],
                "precision": way[1],
                "in_float": [name.removesuffix(".weight") for name in names],
                "nats": quantization_damage(run, way, file),
                "top1": score(run, file),
                "size_bytes": file.size_bytes,
                "p50_ms": old.get(file.sha256) if time is None else time,
                "sha256": file.sha256,
            }
        )
        print(*rows[-1].values(), sep="   ", flush=True)
    return rows


def score(run: Run, file: Artifact) -> float:
    """The metric of a file on all validation samples."""
    session = open_session(file)
    assert session is not None
    assert run.data is not None
    return evaluate(runner(session), run.data, run.metric).value


def markdown(record: Mapping[str, Sequence[Row]]) -> str:
    """One table a network."""
    lines = [
        "# Layers kept in float",
        "",
        "Nats: divergence from the network's outputs on 96 training samples. Top-1 on all validation images.",
        "Latency: p50 on a machine of 2 cores, 1 thread, all files of a network in turns.",
        "",
        "`python -m benchmarks.mixed.run --data cifar10 --models resnet20_cifar10.pt2 ... --latency`",
    ]
    for name, rows in record.items():
        lines += [
            "",
            f"## {name}",
            "",
            "| runtime | precision | nats | top-1 | p50 | file | layers in float |",
        ]
        lines.append("| --- | --- | --- | --- | --- | --- | --- |")
        for row in rows:
            count = len(row["in_float"])
            precision = f"int8, {count} in float" if count else row["precision"]
            time = "not measured" if row["p50_ms"] is None else f"{row['p50_ms']:.3f} ms"
            cells = (
                *(row["runtime"], precision, f"{row['nats']:.4f}", f"{row['top1']:.2f}", time),
                *(f"{row['size_bytes'] / 1e3:.0f} kB", ", ".join(row["in_float"])),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
