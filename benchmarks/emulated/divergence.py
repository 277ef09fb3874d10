"""Where do the Arm kernels first give other numbers than this machine's? Tensor by tensor, in order.

    python -m benchmarks.emulated.divergence vit_tiny.int8.tflite [--out DIR]

Inner tensors become outputs of the file, a hundred at a time, for one set of random inputs: of a TFLite file
all that are calculated; of an ONNX file integers, normalizations and softmax, which ONNX Runtime does not
fuse with their neighbours. That the file's own outputs stay the same bit for bit is checked.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.emulated.run import RUNTIME_OF
from targets._routes.qemu import Emulated
from targets._shared.bundling import fetch_library
from targets._shared.parity import outputs_here
from toolchain.artifacts import content_hash, place
from toolchain.contracts import ModelFile

AT_ONCE: Final = 100
"""The runner takes 128 outputs."""
_ONNX_KINDS: Final = ("QuantizeLinear", "LayerNormalization", "Softmax")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor that an operator of `kind` writes, by its number or name in the file."""

    key: int | str
    kind: str
    dtype: type[np.generic]
    elements: int

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.elements * np.dtype(self.dtype).itemsize


def tensors(path: Path) -> list[Tensor]:
    """The inner tensors that can be shown, in order of execution."""
    return list(_onnx_tensors(path) if path.suffix == ".onnx" else _tflite_tensors(path))


def _tflite_tensors(path: Path) -> Iterator[Tensor]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    types = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT8: np.int8}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        for number in set(map(int, operator.outputs)) - set(map(int, graph.outputs)):
            found = graph.tensors[number]
            if found.type in types:
                yield Tensor(
                    key=number,
                    kind=names[max(code.builtinCode, code.deprecatedBuiltinCode)],
                    dtype=types[found.type],
                    elements=int(np.prod(found.shape)),
                )


def _onnx_tensors(path: Path) -> Iterator[Tensor]:
    """Their types and sizes are those of one inference on zeros."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    stored = {entry.name for entry in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type in _ONNX_KINDS and n.input[0] not in stored]
    own = len(model.graph.output)
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in nodes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    zeros = {
        entry.name: np.zeros([n if isinstance(n, int) else 1 for n in entry.shape], np.float32)
        for entry in session.get_inputs()
    }
    for node, value in zip(nodes, session.run(None, zeros)[own:], strict=True):
        yield Tensor(key=node.output[0], kind=node.op_type, dtype=value.dtype.type, elements=value.size)


def exposed(path: Path, shown: Sequence[Tensor], out: Path) -> None:
    """Write the file with `shown` as outputs behind its own."""
    if path.suffix == ".onnx":
        import onnx

        onnx_model = onnx.load(str(path))
        onnx_model.graph.output.extend(onnx.ValueInfoProto(name=str(tensor.key)) for tensor in shown)
        onnx.save(onnx_model, str(out))
        return
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    graph.outputs = [*map(int, graph.outputs), *(tensor.key for tensor in shown)]
    for signature in model.signatureDefs or ():
        for tensor in shown:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = f"shown_{tensor.key}".encode(), tensor.key
            signature.outputs.append(entry)
    out.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


def both(path: Path, core: str) -> tuple[bytes, bytes]:
    """The outputs of the emulated core and of this machine."""
    file = ModelFile(path=path, runtime=RUNTIME_OF[path.suffix], sha256=content_hash(path))
    here = outputs_here(file)
    if here is None:
        raise SystemExit("error: the runner cannot be had here, so there is nothing to compare with")
    return Emulated(core=core).outputs(file, fetch_library(file.runtime, "aarch64"), 1), here


def compared(path: Path, core: str) -> Iterator[dict[str, Any]]:
    """Every inner tensor: how many elements differ, by how much of its largest value or by how many steps."""
    there, here = both(path, core)
    inside = tensors(path)
    for start in range(0, len(inside), AT_ONCE):
        shown = inside[start : start + AT_ONCE]
        with tempfile.TemporaryDirectory() as folder:
            exposed(path, shown, Path(folder) / path.name)
            pair = both(Path(folder) / path.name, core)
        offset = len(here)
        if (pair[0][:offset], pair[1][:offset]) != (there, here):
            raise SystemExit(f"error: {path.name} gives other outputs when inner tensors are shown")
        for number, tensor in enumerate(shown, start + 1):
            parts = [np.frombuffer(x[offset : offset + tensor.bytes], tensor.dtype) for x in pair]
            yield {"number": number, **_row(tensor, *parts)}
            offset += tensor.bytes


def _row(tensor: Tensor, there: NDArray[Any], here: NDArray[Any]) -> dict[str, Any]:
    apart = np.abs(there.astype(np.float64) - here)
    whole = np.abs(here.astype(np.float64)).max() if tensor.dtype is np.float32 else 1.0
    return {
        "kind": tensor.kind,
        "type": np.dtype(tensor.dtype).name,
        "elements": tensor.elements,
        "differ": int(np.count_nonzero(apart)),
        "largest": float(apart.max() / max(whole, 1e-30)),
    }


def summary(record: dict[str, Any]) -> str:
    """The first float and the first integer tensor that differ, and how the integers go on, as Markdown."""
    rows = record["tensors"]
    floats = [row for row in rows if row["type"] == "float32"]
    integers = [row for row in rows if row["type"] != "float32"]
    lines = [
        f"# {record['file']}: where {record['core']} and this machine part",
        "",
        "Made by `python -m benchmarks.emulated.divergence`. Random inputs. Of the integer tensors all",
        "before the first shown are equal; after the fourth every eighth is shown.",
        "",
        "| tensor | operator | type | differ | of | by |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    first = next((n for n, row in enumerate(integers) if row["differ"]), len(integers))
    chosen = [row for row in floats if row["differ"]][:1] + integers[first : first + 4]
    for row in chosen + integers[first + 4 :: 8]:
        by = f"{row['largest']:.1e} of the largest" if row in floats else f"{row['largest']:.0f} steps"
        lines.append(
            f"| {row['number']} of {len(rows)} | {row['kind']} | {row['type']} | {row['differ']:,}"
            f" | {row['elements']:,} | {by} |"
        )
    if first == len(integers):
        lines += ["", f"All {len(integers)} integer tensors are equal."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare, write FILE.json and FILE.md, show the second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path, help="a .tflite or .onnx file")
    parser.add_argument("--core", default="cortex-a53")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tensors")
    flags = parser.parse_args()
    record = {
        "file": flags.file.name,
        "sha256": content_hash(flags.file),
        "core": flags.core,
        "tensors": list(compared(flags.file, flags.core)),
    }
    flags.out.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".json", json.dumps(record) + "\n"), (".md", summary(record))):
        place(flags.out / f"{flags.file.name}{suffix}", lambda p, t=text: p.write_text(t, encoding="utf-8"))
    print(summary(record), end="")


if __name__ == "__main__":
    main()
