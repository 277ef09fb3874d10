"""ONNX int8 by ONNX Runtime's own static quantizer: uint8 activations, int8 weights per output channel."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolchain.artifacts import deliver
from toolchain.contracts import Quantizer
from toolchain.errors import InputError
from toolchain.float_parts import Operator, float_operators
from toolchain.foreign import require, translated
from toolchain.same_weights import operators_of
from toolchain.values import Artifact

if TYPE_CHECKING:
    from toolchain.contracts import Arrays, Weights

BATCH: Final = 32
"""Calibration samples per run: ONNX Runtime keeps every activation of a run in memory."""
_WITH_WEIGHTS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize(source: Artifact, path: Path, samples: Sequence[Arrays] | None, in_float: Weights) -> Artifact:
    """Write an int8 file in QDQ form; activations between two layers `in_float` stay float too.

    uint8 activations with symmetric int8 weights run about 2.5 times as fast as int8 with int8 on x86: its
    integer dot product takes unsigned by signed.

    Raises:
        InputError: packages or calibration samples are missing, or the disk refuses.
        ConversionError: the quantizer cannot treat the file, or a layer `in_float` is not in it.
    """
    require(("onnx", "onnxruntime"), extra="onnx", purpose="quantizing ONNX")
    if not samples:
        raise InputError("int8 needs calibration samples", hint="give --data, or leave int8 out")
    with translated(f"quantization of {source.path.name}"), tempfile.TemporaryDirectory() as scratch:
        content = _quantized(source.path, Path(scratch) / "int8.onnx", samples, in_float)
    return deliver(
        path,
        lambda partial: _save(partial, content),
        format_name="onnx",
        runtime="onnxruntime",
        precision="int8",
    )


def _save(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _quantized(source: Path, scratch: Path, samples: Sequence[Arrays], in_float: Weights) -> bytes:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load(source)
    better = tuple(_better_in_float(model))
    quantize_static(
        model,
        scratch,
        _Reader([value.name for value in model.graph.input], samples, _batch(model)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=[*operators_of(in_float, _layers(model)), *_not_quantizable(model), *better],
        extra_options={
            "WeightSymmetric": True,
            "ActivationSymmetric": False,
            "OpTypesToExcludeOutputQuantization": ["MatMul"] if better else [],
        },
    )
    made = onnx.load(scratch)
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return bytes(made.SerializeToString(deterministic=True))


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Names and weights of the nodes that have weights."""
    from onnx import numpy_helper

    stored = {entry.name: entry for entry in model.graph.initializer}
    for node in model.graph.node:
        weights = [stored[name] for name in node.input[:2] if name in stored]
        if node.op_type in _WITH_WEIGHTS and weights:
            yield node.name, numpy_helper.to_array(weights[0])


def _not_quantizable(model: Any) -> Iterator[str]:
    """Transposed convolutions in groups: ONNX Runtime counts the output channels of one group for all."""
    for node in model.graph.node:
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.op_type == "ConvTranspose" and groups > 1:
            yield node.name


def _better_in_float(model: Any) -> Iterator[str]:
    """Normalizations, softmax and what calculates beside them.

    Products then give float as well: between two integer tensors ONNX Runtime would make the softmax an
    integer operator again. ViT-Ti with random weights (x86-64): 29.6 dB, with all in integers 6.1.
    """
    nodes = model.graph.node
    operators = [
        Operator(kind=node.op_type, reads=tuple(node.input), writes=tuple(node.output)) for node in nodes
    ]
    stored = frozenset(entry.name for entry in model.graph.initializer) | {""}
    for number in sorted(float_operators(operators, stored)):
        yield nodes[number].name


def _batch(model: Any) -> int:
    """The file's fixed batch, or BATCH where it is dynamic."""
    shape = model.graph.input[0].type.tensor_type.shape.dim
    return int(shape[0].dim_value) or BATCH if shape else 1


class _Reader:
    """Calibration samples as ONNX Runtime wants them: a feed at a time, then None."""

    def __init__(self, names: Sequence[str], samples: Sequence[Arrays], batch: int) -> None:
        self._feeds: Iterator[dict[str, Any]] = _feeds(names, samples, batch)

    def get_next(self) -> dict[str, Any] | None:
        """The next feed."""
        return next(self._feeds, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._feeds


def _feeds(names: Sequence[str], samples: Sequence[Arrays], batch: int) -> Iterator[dict[str, Any]]:
    for arrays in samples:
        for start in range(0, max(len(arrays[0]) - batch + 1, 1), batch):
            yield dict(zip(names, (a[start : start + batch] for a in arrays), strict=True))


QUANTIZER: Final = Quantizer(
    name="onnx-int8",
    format="onnx",
    runtime="onnxruntime",
    precision="int8",
    needs_data=True,
    quantize=quantize,
)
