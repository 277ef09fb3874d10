"""Do Arm's kernels give this machine's outputs, and do instruction counts repeat? Both under emulation.

    python -m benchmarks.emulated.run --resnet20 resnet20_cifar10.pt2 --vit vit.pt2 --data cifar10 --models M
    python -m benchmarks.emulated.run FILE.onnx FILE.tflite ... [--core cortex-a53] [--runs 20]

The first form makes the files of four networks in M (benchmarks.emulated.vit trains the transformer).
Every file is run in two processes, half of the runs in each. What an inference needs is the least count;
`repeats` is how far those of the two processes are apart. What was run stays in results.json; the step of an
int8 file's outputs is read from the file.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.emulated.files import Sources, built
from targets._routes.qemu import Emulated
from targets._shared.bundling import fetch_library
from targets._shared.parity import outputs_here
from toolchain.artifacts import content_hash, place
from toolchain.contracts import ModelFile

LEAST_OUTPUTS, IN_FLOAT = 1000, 100
"""Numbers that are compared at least, of an int8 and of a float file: as many random inputs are run."""
RUNTIME_OF = {".onnx": "onnxruntime", ".tflite": "litert"}


ABOUT = """# Emulated Arm

Made by `python -m benchmarks.emulated.run --resnet20 P --vit P --data D --models M`: random inputs, batch 1,
one thread, qemu-user. The largest difference is over the largest value. A step is the scale of the quantized
tensor that the output is made from. Instructions: the least of the counted inferences, and how far those of
two processes are apart; near: how many of all inferences are within 0.01 % of it.

resnet20 and vit are trained on CIFAR-10, mobilenet_v2 and vit_tiny have random weights. Where and why the
int8 files of vit_tiny part: [tensor by tensor](tensors), [docs/runner.md](../../docs/runner.md).

| file | runtime | core | largest difference | within one step | instructions | repeats to | near |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def step_of(path: Path) -> float | None:
    """The scale of a quantized file's output; None for a float file."""
    return _onnx_step(path) if path.suffix == ".onnx" else _tflite_step(path)


def _onnx_step(path: Path) -> float | None:
    import onnx

    graph = onnx.load(str(path)).graph
    values = {entry.name: entry for entry in graph.initializer}
    for node in graph.node:
        if graph.output[0].name in node.output and node.op_type == "DequantizeLinear":
            return float(onnx.numpy_helper.to_array(values[node.input[1]]))
    return None


def _tflite_step(path: Path) -> float | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        if graph.outputs[0] in operator.outputs and code == schema.BuiltinOperator.DEQUANTIZE:
            return float(graph.tensors[operator.inputs[0]].quantization.scale[0])
    return None


def compared(path: Path, core: str, runs: int) -> dict[str, Any]:
    """Counts and parity of one file."""
    file = ModelFile(path=path, runtime=RUNTIME_OF[path.suffix], sha256=content_hash(path))
    library = fetch_library(file.runtime, "aarch64")
    machine = Emulated(core=core, runs=runs // 2)
    halves = [machine.run(file, library) for _ in range(2)]
    least, raw = [min(counts) for counts, _ in halves], halves[0][1]
    counts = [count for half, _ in halves for count in half]
    step = step_of(path)
    least_outputs = LEAST_OUTPUTS if step else IN_FLOAT
    sets = -(-least_outputs * 4 // len(raw))
    if sets > 1:
        raw = machine.outputs(file, library, sets)
    here = outputs_here(file, sets)
    if here is None:
        raise SystemExit("error: the runner cannot be had here, so there is nothing to compare with")
    emulated, native = (np.frombuffer(x, np.float32).astype(np.float64) for x in (raw, here))
    apart = np.abs(emulated - native)
    return {
        "file": path.name,
        "sha256": file.sha256,
        "runtime": file.runtime,
        "version": library.version,
        "core": core,
        "runs": runs,
        "inputs": sets,
        "outputs": len(native),
        "max_relative": float(apart.max() / np.abs(native).max()),
        "step": step,
        "within_step": None if step is None else float(np.mean(apart <= 1.001 * step)),
        "instructions": min(counts),
        "repeats": max(least) / min(least) - 1,
        "near": sum(count <= 1.0001 * min(counts) for count in counts),
        "counts": counts,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [ABOUT]
    for row in rows:
        share = "" if row["within_step"] is None else f"{100 * row['within_step']:.2f} % of {row['outputs']}"
        lines.append(
            f"| {row['file']} | {row['runtime']} {row['version']} | {row['core']} | {row['max_relative']:.1e}"
            f" | {share} | {row['instructions']:,} | {100 * row['repeats']:.4f} %"
            f" | {row['near']} of {row['runs']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what has not been run, write results.json and results.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--resnet20", type=Path, help="the trained ResNet-20, an archive")
    parser.add_argument("--vit", type=Path, help="the trained transformer, an archive")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as folders train/ and val/")
    parser.add_argument("--models", type=Path, help="where the files of the networks are, or are made")
    parser.add_argument("--core", default="cortex-a53")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    flags = parser.parse_args()
    results = flags.out / "results.json"
    known = json.loads(results.read_text(encoding="utf-8"))["files"] if results.exists() else []
    files = tuple(flags.files)
    if flags.models is not None:
        if None in (flags.resnet20, flags.vit, flags.data):
            parser.error("--models needs --resnet20, --vit and --data")
        files += built(Sources(resnet20=flags.resnet20, vit=flags.vit, data=flags.data), flags.models)
    for path in files:
        key = (content_hash(path), flags.core, flags.runs)
        if any((row["sha256"], row["core"], row["runs"]) == key for row in known):
            continue
        known = [row for row in known if (row["file"], row["core"]) != (path.name, flags.core)]
        known.append(compared(path, flags.core, flags.runs))
        text = json.dumps({"schema": "edgefit.benchmark.emulated/1", "files": known}, indent=1) + "\n"
        place(results, lambda p, text=text: p.write_text(text, encoding="utf-8"))
        place(
            flags.out / "results.md", lambda p, rows=tuple(known): p.write_text(table(rows), encoding="utf-8")
        )
    os.write(1, table(known).encode())


if __name__ == "__main__":
    main()
