"""What goes in and out of a finished TFLite or ONNX file, read from the file itself; no engine is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from toolchain.errors import ConversionError, InputError
from toolchain.foreign import require, translated

BYTES: Final = {
    "float32": 4, "float16": 2, "float64": 8, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2,
    "int32": 4, "uint32": 4, "int64": 8, "uint64": 8, "bool": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output. A real value is `scale * (stored - zero_point)` where `scale` is not None."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Inputs and outputs in the file's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read_interface(path: Path) -> Interface:
    """The interface of a `.tflite` or `.onnx` file.

    Raises:
        InputError: another kind of file, or the package that reads it is missing.
        ConversionError: the file is not what its name says.
    """
    if path.suffix == ".tflite":
        require(("ai_edge_litert",), extra="tflite", purpose="reading TFLite")
        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise ConversionError(f"{path} is not a TFLite file")
        with translated(f"reading {path.name}"):
            return _tflite(content)
    if path.suffix == ".onnx":
        require(("onnx",), extra="onnx", purpose="reading ONNX")
        with translated(f"reading {path.name}"):
            return _onnx(path)
    raise InputError(f"{path} is neither .tflite nor .onnx", hint="compress writes such files")


def _tflite(content: bytes) -> Interface:
    from ai_edge_litert import schema_py_generated as schema

    kinds = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)

    def port(index: int) -> Port:
        tensor = graph.Tensors(index)
        found = tensor.Quantization()
        quantized = found is not None and found.ScaleLength() == 1
        return Port(
            name=tensor.Name().decode(),
            dtype=kinds[tensor.Type()],
            shape=tuple(int(n) for n in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else (),
            scale=float(found.Scale(0)) if quantized else None,
            zero_point=int(found.ZeroPoint(0)) if quantized else None,
        )

    return Interface(
        inputs=tuple(port(graph.Inputs(i)) for i in range(graph.InputsLength())),
        outputs=tuple(port(graph.Outputs(i)) for i in range(graph.OutputsLength())),
    )


def _onnx(path: Path) -> Interface:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    weights = {entry.name for entry in model.graph.initializer}

    def port(value: Any) -> Port:
        tensor = value.type.tensor_type
        return Port(
            name=value.name,
            dtype=str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
            # A dimension without a number is the batch: one sample at a time on a device.
            shape=tuple(d.dim_value or 1 for d in tensor.shape.dim),
        )

    return Interface(
        inputs=tuple(port(v) for v in model.graph.input if v.name not in weights),
        outputs=tuple(port(v) for v in model.graph.output),
    )
