"""TFLite through LiteRT's converter for PyTorch: batch 1, NCHW as the program, metadata in the flatbuffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolchain.artifacts import deliver
from toolchain.contracts import Format
from toolchain.errors import ConversionError
from toolchain.export._graph import refuse_too_large, sample
from toolchain.foreign import require, translated
from toolchain.values import Artifact, Program, TensorSpec

if TYPE_CHECKING:
    from toolchain.contracts import Arrays

_PACKAGES: Final = ("litert_torch", "ai_edge_litert")


def write(program: Program, path: Path, metadata: Mapping[str, str]) -> Artifact:
    """Write `program` at batch 1 as one TFLite file with a signature of the program's names.

    Raises:
        InputError: a package is missing, or the disk refuses.
        ConversionError: an operator cannot be translated, or the weights are too large for one file.
    """
    require(_PACKAGES, extra="tflite", purpose="writing TFLite")
    refuse_too_large(program, "TFLite")
    import litert_torch

    with translated(f"conversion of '{program.name}' to TFLite"):
        made = litert_torch.convert(program.module, sample(program, 1))
        content = _labelled(made.model_content(), program, metadata)
    return deliver(
        path,
        lambda partial: _save(partial, content),
        format_name="tflite",
        runtime="litert",
        precision="fp32",
    )


def _save(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _labelled(content: bytes, program: Program, metadata: Mapping[str, str]) -> bytes:
    """The flatbuffer with the program's names and order of inputs and outputs, and the metadata.

    Given:  signature {args_0: t3, args_1: t9} -> {output_0: t7}
    Result: signature {image: t3, mask: t9} -> {logits: t7}, subgraph inputs [t3, t9], and one metadata entry
    for every item.
    """
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    graph.inputs = _renamed(signature.inputs, [s.name for s in program.inputs], "args_")
    graph.outputs = _renamed(signature.outputs, [s.name for s in program.outputs], "output_")
    kept = [entry for entry in model.metadata or [] if entry.name.decode() not in metadata]
    for key in sorted(metadata):
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(metadata[key].encode())
        entry.name, entry.buffer = key.encode(), len(model.buffers)
        model.buffers.append(buffer)
        kept.append(entry)
    model.metadata = kept
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _renamed(entries: Any, names: list[str], prefix: str) -> list[int]:
    """Name the signature's entries; the tensors in the program's order.

    Raises:
        ConversionError: the converter dropped an input or output.
    """
    by_name = {entry.name.decode(): entry for entry in entries}
    order = []
    for number, name in enumerate(names):
        entry = by_name.get(f"{prefix}{number}")
        if entry is None:
            raise ConversionError(
                f"the TFLite converter dropped '{name}'", hint="an input that is not used cannot be exported"
            )
        entry.name = name.encode()
        order.append(int(entry.tensorIndex))
    return order


@dataclass(kw_only=True)
class LiteRtSession:
    """A TFLite file opened in LiteRT on one CPU thread. Its batch is fixed, so batches run slice by slice."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    engine: Any

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Shape and type of every input; any multiple of the file's batch is run."""
        return tuple(
            TensorSpec(
                name=name, shape=(None, *(int(n) for n in entry["shape"][1:])), dtype=entry["dtype"].__name__
            )
            for name, entry in zip(self.inputs, self.engine.get_input_details(), strict=True)
        )

    def run(self, arrays: Arrays) -> Arrays:
        """Outputs for inputs [n, ...] where n is a multiple of the file's batch."""
        import numpy as np

        into, out = self.engine.get_input_details(), self.engine.get_output_details()
        size = int(into[0]["shape"][0])
        parts: list[list[Any]] = [[] for _ in out]
        for start in range(0, len(arrays[0]), size):
            for detail, array in zip(into, arrays, strict=True):
                value = array[start : start + size].astype(detail["dtype"], order="C", casting="same_kind")
                self.engine.set_tensor(detail["index"], value)
            self.engine.invoke()
            for part, detail in zip(parts, out, strict=True):
                part.append(self.engine.get_tensor(detail["index"]))
        return tuple(np.concatenate(part) for part in parts)


def open_file(path: Path) -> LiteRtSession:
    """Open a TFLite file for running.

    Raises:
        InputError: LiteRT is missing.
        ConversionError: it is not a TFLite file that LiteRT runs.
    """
    require(("ai_edge_litert",), extra="tflite", purpose="running TFLite")
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise ConversionError(f"no TFLite file at {path}")
    with translated(f"opening {path.name} in LiteRT"):
        engine = Interpreter(model_path=str(path), num_threads=1)
        engine.allocate_tensors()
        inputs, outputs = _signature(path.read_bytes())
    return LiteRtSession(inputs=inputs, outputs=outputs, engine=engine)


def _signature(content: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Input and output names, in the subgraph's order."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    graph, signature = model.Subgraphs(0), model.SignatureDefs(0)
    into = {
        signature.Inputs(i).TensorIndex(): signature.Inputs(i).Name() for i in range(graph.InputsLength())
    }
    out = {
        signature.Outputs(i).TensorIndex(): signature.Outputs(i).Name() for i in range(graph.OutputsLength())
    }
    inputs = tuple(into[graph.Inputs(i)].decode() for i in range(graph.InputsLength()))
    outputs = tuple(out[graph.Outputs(i)].decode() for i in range(graph.OutputsLength()))
    return inputs, outputs


def read_metadata(path: Path) -> dict[str, str]:
    """The flatbuffer's text metadata."""
    require(("ai_edge_litert",), extra="tflite", purpose="reading TFLite")
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    found = {}
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        buffer = model.Buffers(entry.Buffer())
        data = bytes(buffer.DataAsNumpy()) if buffer.DataLength() else b""
        found[entry.Name().decode()] = data.decode("utf-8", "replace")
    return found


FORMAT: Final = Format(
    name="tflite",
    summary="TFLite for LiteRT (Android, embedded Linux)",
    suffix=".tflite",
    extra="tflite",
    write=write,
    read=read_metadata,
    open=open_file,
    packages=_PACKAGES,
)
