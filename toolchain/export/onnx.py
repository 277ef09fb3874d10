"""ONNX through torch's dynamo exporter: fused, dynamic batch, everything about the model in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from toolchain.artifacts import deliver
from toolchain.contracts import Format
from toolchain.errors import ConversionError
from toolchain.export._graph import exported, refuse_too_large
from toolchain.foreign import quiet, require, translated
from toolchain.values import Artifact, Program, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from toolchain.contracts import Arrays

OPSET: Final = 20
"""Runs in ONNX Runtime 1.17 (2024) and newer."""
_PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime", "onnxsim")


def write(program: Program, path: Path, metadata: Mapping[str, str]) -> Artifact:
    """Write `program` as one self-contained ONNX file, input and output names as the program's.

    Raises:
        InputError: a package is missing, or the disk refuses.
        ConversionError: an operator cannot be translated, or the weights are too large for one file.
    """
    require(_PACKAGES, extra="onnx", purpose="writing ONNX")
    refuse_too_large(program, "ONNX")
    with translated(f"conversion of '{program.name}' to ONNX"):
        model = _simplified(_converted(program))
        _name_batch(model, program)
        del model.metadata_props[:]
        for key in sorted(metadata):
            model.metadata_props.add(key=key, value=metadata[key])
        content = model.SerializeToString(deterministic=True)
    return deliver(
        path,
        lambda partial: _save(partial, content),
        format_name="onnx",
        runtime="onnxruntime",
        precision="fp32",
    )


def _save(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _converted(program: Program) -> Any:
    """The ONNX ModelProto; handing over an exported program spares the exporter its search for a strategy."""
    dynamic = any(None in spec.shape for spec in program.inputs)
    made = torch.onnx.export(
        exported(program, 2, dynamic=dynamic),
        dynamo=True,
        external_data=False,
        optimize=True,
        opset_version=OPSET,
        input_names=[spec.name for spec in program.inputs],
        output_names=[spec.name for spec in program.outputs],
        verbose=False,
    )
    assert made is not None
    return made.model_proto


def _simplified(model: Any) -> Any:
    """The model after onnxsim, where that removes nodes and gives the same outputs; else as it was."""
    import onnxsim

    smaller, _ = onnxsim.simplify(model, check_n=0)
    if len(smaller.graph.node) >= len(model.graph.node):
        return model
    return smaller if _same_outputs(model, smaller) else model


def _same_outputs(left: Any, right: Any) -> bool:
    """Whether both give equal outputs (1e-5 of the largest) on one seeded random input."""
    import numpy as np

    pairs = zip(_answers(left), _answers(right), strict=True)
    return all(np.allclose(a, b, rtol=0, atol=1e-5 * max(1e-30, float(np.abs(a).max()))) for a, b in pairs)


def _answers(model: Any) -> list[Any]:
    """What the model as it stands, not rewritten by the engine, gives on one seeded random input.

    One session at a time: a session holds the weights once more.
    """
    import numpy as np

    session = _session(model.SerializeToString(), rewriting=False)
    rng = np.random.default_rng(0)
    feed = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in entry.shape]
        kind = _NUMPY.get(entry.type, "float32")
        draw = rng.standard_normal(shape) if kind.startswith("float") else rng.integers(0, 2, shape)
        feed[entry.name] = draw.astype(kind)
    return list(session.run(None, feed))


_NUMPY: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
}


def _name_batch(model: Any, program: Program) -> None:
    """Call the dynamic dimension `batch` everywhere, instead of the exporter's symbol."""
    symbols = set()
    for value, spec in zip(model.graph.input, program.inputs, strict=True):
        dims = value.type.tensor_type.shape.dim
        symbols |= {d.dim_param for d, size in zip(dims, spec.shape, strict=True) if size is None}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in symbols:
                dim.dim_param = "batch"


def _session(source: str | bytes, *, rewriting: bool = True) -> Any:
    """The model in ONNX Runtime on one thread, with or without the engine's own optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    if not rewriting:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@dataclass(kw_only=True)
class OnnxSession:
    """An ONNX file opened in ONNX Runtime on one CPU thread."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    engine: Any

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Shape and type of every input."""
        return tuple(
            TensorSpec(
                name=entry.name,
                shape=tuple(size if isinstance(size, int) else None for size in entry.shape),
                dtype=_NUMPY.get(entry.type, "float32"),
            )
            for entry in self.engine.get_inputs()
        )

    def run(self, arrays: Arrays) -> Arrays:
        """Outputs for inputs of any batch size (where the file's batch is dynamic)."""
        feed: dict[str, np.ndarray[Any, Any]] = dict(zip(self.inputs, arrays, strict=True))
        return tuple(self.engine.run(None, feed))


def open_file(path: Path) -> OnnxSession:
    """Open an ONNX file for running.

    Raises:
        InputError: ONNX Runtime is missing.
        ConversionError: it is not an ONNX file that ONNX Runtime runs.
    """
    require(("onnxruntime",), extra="onnx", purpose="running ONNX")
    if not path.is_file():
        raise ConversionError(f"no ONNX file at {path}")
    with translated(f"opening {path.name} in ONNX Runtime"):
        engine = _session(str(path))
    return OnnxSession(
        inputs=tuple(entry.name for entry in engine.get_inputs()),
        outputs=tuple(entry.name for entry in engine.get_outputs()),
        engine=engine,
    )


def read_metadata(path: Path) -> dict[str, str]:
    """What `write` put into the file's metadata."""
    require(("onnxruntime",), extra="onnx", purpose="reading ONNX")
    with quiet():
        engine = open_file(path).engine
    return dict(engine.get_modelmeta().custom_metadata_map)


FORMAT: Final = Format(
    name="onnx",
    summary="ONNX for ONNX Runtime, TensorRT, OpenVINO",
    suffix=".onnx",
    extra="onnx",
    write=write,
    read=read_metadata,
    open=open_file,
    packages=_PACKAGES,
)
