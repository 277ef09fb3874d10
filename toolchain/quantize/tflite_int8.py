"""TFLite int8 by AI Edge Quantizer: static int8 activations, int8 weights per output channel."""

from __future__ import annotations

import re
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

_WITH_WEIGHTS: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")
_SLOW: Final = ("BATCH_MATMUL",)
"""XNNPACK multiplies activations by activations in float only, and each one that it leaves ends its part of
the graph: ViT-Ti (x86-64) took 35.5 ms of processor time with these products in int8, 12.7 with them in
float.
"""
_MOVING: Final = ("TRANSPOSE", "PAD", "RESHAPE")
"""Operators that only move their input: in float where all that reads them is."""


def quantize(source: Artifact, path: Path, samples: Sequence[Arrays] | None, in_float: Weights) -> Artifact:
    """Write an int8 file; its inputs and outputs stay float32, so do activations between layers `in_float`.

    Raises:
        InputError: packages or calibration samples are missing, or the disk refuses.
        ConversionError: the quantizer cannot treat the file, or a layer `in_float` is not in it.
    """
    require(("ai_edge_quantizer", "ai_edge_litert"), extra="tflite", purpose="quantizing TFLite")
    if not samples:
        raise InputError("int8 needs calibration samples", hint="give --data, or leave int8 out")
    with translated(f"quantization of {source.path.name}"):
        content = _quantized(source.path, samples, in_float)
    return deliver(
        path,
        lambda partial: _save(partial, content),
        format_name="tflite",
        runtime="litert",
        precision="int8",
    )


def _save(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _quantized(source: Path, samples: Sequence[Arrays], in_float: Weights) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    names, batch, key = _signature(source)
    engine = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    for boundary in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        # An application hands in and takes out what it did with the float file.
        engine.update_quantization_recipe(
            regex=".*", operation_name=boundary, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    for scope in _scopes(source, in_float):
        engine.update_quantization_recipe(
            regex=f"^{re.escape(scope)};?$",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key=AlgorithmName.NO_QUANTIZE,
        )
    asked = recipe_manager.RecipeManager()
    asked.load_quantization_recipe(engine.get_quantization_recipe())
    ranges = _ranges(source, {key: list(_feeds(names, samples, batch))}, asked)
    return _joined(bytes(engine.quantize(ranges).quantized_model))


def _joined(content: bytes) -> bytes:
    """The same file with its weights inside the flatbuffer.

    From 256 kB on the quantizer writes them behind it. TFLite Micro does not look there: it reads zeros
    without a word, and ResNet-20's int8 file computed nonsense.
    """
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    outside = [buffer for buffer in model.buffers if buffer.offset > 1]
    if not outside:
        return content
    for buffer in outside:
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _ranges(source: Path, feeds: Any, asked: Any) -> Any:
    """The least and the largest value of every tensor over all samples.

    The quantizer's own habit is a moving average of the samples' ranges, which cuts off what lies beyond an
    average sample's. With the extremes ResNet-20 and a VGG on CIFAR-10 lose 0.0012 and 0.0002 nats, not
    0.0124 and 0.0325, and their top-1 is 0.25 and 0.55 points higher (2,000 images).
    """
    import numpy as np
    from ai_edge_quantizer import calibrator

    def widened(known: Any, new: Any) -> Any:
        return {"min": np.minimum(known["min"], new["min"]), "max": np.maximum(known["max"], new["max"])}

    found = calibrator.Calibrator(str(source), num_threads=1, qsv_update_func=widened)
    found.calibrate(feeds, asked)
    return found.get_model_qsvs()


def _scopes(source: Path, in_float: Weights) -> list[str]:
    """Names of the outputs, by which recipes know operators, of all that is to stay in float."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    graph = model.subgraphs[0]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    kinds = [
        names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in (model.operatorCodes[operator.opcodeIndex] for operator in graph.operators)
    ]
    kept = set(operators_of(in_float, _layers(model, graph, kinds)))
    readers: dict[int, list[int]] = {}
    for number, operator in enumerate(graph.operators):
        for tensor in operator.inputs:
            readers.setdefault(int(tensor), []).append(number)
    for number in reversed(range(len(kinds))):
        read_by = readers.get(int(graph.operators[number].outputs[0]), [])
        if kinds[number] in _MOVING and read_by and kept.issuperset(read_by):
            kept.add(number)
    kept |= float_operators(_operators(graph, kinds), frozenset(_stored(model, graph)), also=_SLOW)
    return [graph.tensors[graph.operators[number].outputs[0]].name.decode() for number in sorted(kept)]


def _operators(graph: Any, kinds: Sequence[str]) -> list[Operator]:
    return [
        Operator(kind=kind, reads=tuple(map(int, found.inputs)), writes=tuple(map(int, found.outputs)))
        for kind, found in zip(kinds, graph.operators, strict=True)
    ]


def _stored(model: Any, graph: Any) -> Iterator[int]:
    """Tensors whose values are in the file, and -1, which stands for an input that is left out."""
    yield -1
    for number, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            yield number


def _layers(model: Any, graph: Any, kinds: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Numbers and weights of the operators that have constant weights."""
    import numpy as np

    for number, operator in enumerate(graph.operators):
        for tensor in operator.inputs if kinds[number] in _WITH_WEIGHTS else ():
            data = model.buffers[graph.tensors[tensor].buffer].data if tensor >= 0 else None
            if data is not None and len(data) and len(graph.tensors[tensor].shape) > 1:
                yield number, np.asarray(data, np.uint8).view(np.float32)


def _signature(source: Path) -> tuple[tuple[str, ...], int, str]:
    """Input names in order, the batch and the key of the file's signature."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(source.read_bytes(), 0)
    graph, signature = model.Subgraphs(0), model.SignatureDefs(0)
    named = {
        signature.Inputs(i).TensorIndex(): signature.Inputs(i).Name() for i in range(graph.InputsLength())
    }
    names = tuple(named[graph.Inputs(i)].decode() for i in range(graph.InputsLength()))
    return names, int(graph.Tensors(graph.Inputs(0)).Shape(0)), signature.SignatureKey().decode()


def _feeds(names: Sequence[str], samples: Sequence[Arrays], batch: int) -> Iterator[dict[str, Any]]:
    for arrays in samples:
        for start in range(0, len(arrays[0]) - batch + 1, batch):
            yield dict(zip(names, (a[start : start + batch] for a in arrays), strict=True))


QUANTIZER: Final = Quantizer(
    name="tflite-int8",
    format="tflite",
    runtime="litert",
    precision="int8",
    needs_data=True,
    quantize=quantize,
)
