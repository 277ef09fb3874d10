"""TFLite files for timing single layers: one file a layer.

Given: one layer and a precision. Result: a graph of that layer alone; the file without a layer (`None`) shows
what a call costs. Weights are [out, kh, kw, in / groups], activations [1, h, w, channels]; in int8
the scales are fixed numbers, per channel for weights, as the quantizer writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.values import Layer, Precision

_FLOAT32, _INT32, _INT8 = 0, 2, 9
_SAME, _VALID = 0, 1
_ADD, _CONV, _DEPTHWISE, _LINEAR, _PAD = 0, 3, 4, 9, 34
_OPTIONS = {_ADD: 11, _CONV: 1, _DEPTHWISE: 2, _LINEAR: 8, _PAD: 22}
_SCALE, _WEIGHT_SCALE = 0.03, 0.01
# Weights repeat these: which numbers they are does not matter for the time, drawing them would take it.
_NUMBERS = np.random.default_rng(0).standard_normal(4093, dtype=np.float32)
_CODES = np.random.default_rng(0).integers(-127, 128, 4093, dtype=np.int8)


@dataclass(kw_only=True)
class _File:
    """The model while it is made; buffer 0 is the empty one that activations point to."""

    precision: Precision
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)

    def activation(self, shape: Sequence[int]) -> int:
        integer = self.precision == "int8"
        scales = [_SCALE] if integer else None
        return self._tensor(shape, _INT8 if integer else _FLOAT32, 0, scales, 0)

    def constant(
        self, value: np.ndarray[Any, Any], scales: Sequence[float] | None = None, axis: int = 0
    ) -> int:
        from ai_edge_litert import schema_py_generated as schema

        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), dtype=np.uint8)
        self.buffers.append(buffer)
        kind = {"float32": _FLOAT32, "int32": _INT32, "int8": _INT8}[value.dtype.name]
        return self._tensor(value.shape, kind, len(self.buffers), scales, axis)

    def operator(self, code: int, inputs: Sequence[int], output: int, options: Any) -> int:
        from ai_edge_litert import schema_py_generated as schema

        if code not in self.codes:
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.index(code)
        operator.inputs, operator.outputs = list(inputs), [output]
        operator.builtinOptionsType, operator.builtinOptions = _OPTIONS[code], options
        self.operators.append(operator)
        return output

    def _tensor(
        self, shape: Sequence[int], kind: int, buffer: int, scales: Sequence[float] | None, axis: int
    ) -> int:
        from ai_edge_litert import schema_py_generated as schema

        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, buffer
        tensor.name = f"t{len(self.tensors)}"
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = list(scales)
            tensor.quantization.zeroPoint = [0] * len(scales)
            tensor.quantization.quantizedDimension = axis
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def possible(layer: Layer) -> bool:
    """Whether this file knows how to write the layer."""
    return layer.kind == "linear" or (1 <= len(layer.kernel) <= 2 and not layer.transposed)


def write(layer: Layer | None, precision: Precision, path: Path) -> None:
    """One file with `layer`, or with one sum of two numbers where it is None; batch 1."""
    file = _File(precision=precision)
    if layer is None:
        source = file.activation((1, 1))
        output = _sum(file, source)
    elif layer.kind == "linear":
        source = file.activation((layer.tokens, layer.in_channels))
        output = _linear(file, source, layer)
    else:
        source = file.activation((1, *_planar(layer.input_size, 1), layer.in_channels))
        output = _convolution(file, source, layer)
    path.write_bytes(_pack(file, source, output))


def _sum(file: _File, source: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    return file.operator(_ADD, [source, source], file.activation((1, 1)), schema.AddOptionsT())


def _linear(file: _File, source: int, layer: Layer) -> int:
    from ai_edge_litert import schema_py_generated as schema

    weight = _weight(file, (layer.out_channels, layer.in_channels), 0)
    inputs = [source, weight, _bias(file, layer.out_channels)]
    output = file.activation((layer.tokens, layer.out_channels))
    return file.operator(_LINEAR, inputs, output, schema.FullyConnectedOptionsT())


def _convolution(file: _File, source: int, layer: Layer) -> int:
    from ai_edge_litert import schema_py_generated as schema

    kernel, stride = _planar(layer.kernel, 1), _planar(layer.stride, 1)
    dilation, padding = _planar(layer.dilation, 1), _planar(layer.padding, 0)
    depthwise = layer.groups == layer.in_channels and layer.groups > 1
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    options.strideH, options.strideW = stride
    options.dilationHFactor, options.dilationWFactor = dilation
    options.padding = _SAME
    if not _is_same(kernel, stride, dilation, padding):
        options.padding = _VALID
        source = _padded(file, source, layer, padding)
    if depthwise:
        options.depthMultiplier = layer.out_channels // layer.in_channels
        weight = _weight(file, (1, *kernel, layer.out_channels), 3)
    else:
        weight = _weight(file, (layer.out_channels, *kernel, layer.in_channels // layer.groups), 0)
    output = file.activation((1, *_planar(layer.output_size, 1), layer.out_channels))
    inputs = [source, weight, _bias(file, layer.out_channels)]
    return file.operator(_DEPTHWISE if depthwise else _CONV, inputs, output, options)


def _is_same(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], padding: Sequence[int]
) -> bool:
    """Whether the symmetric padding is what SAME means; with a stride SAME pads one side more."""
    spans = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    return tuple(stride) == (1, 1) and all(2 * p == s for p, s in zip(padding, spans, strict=True))


def _padded(file: _File, source: int, layer: Layer, padding: Sequence[int]) -> int:
    """The input with explicit zeros around it, as the converter writes it."""
    from ai_edge_litert import schema_py_generated as schema

    if not any(padding):
        return source
    height, width = _planar(layer.input_size, 1)
    shape = (1, height + 2 * padding[0], width + 2 * padding[1], layer.in_channels)
    pairs = [[0, 0], [padding[0]] * 2, [padding[1]] * 2, [0, 0]]
    amounts = file.constant(np.asarray(pairs, np.int32))
    return file.operator(_PAD, [source, amounts], file.activation(shape), schema.PadOptionsT())


def _planar(sizes: Sequence[int], fill: int) -> tuple[int, int]:
    """Sizes of a one-dimensional layer as those of a plane of height one."""
    return (fill, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _weight(file: _File, shape: tuple[int, ...], axis: int) -> int:
    if file.precision != "int8":
        return file.constant(np.resize(_NUMBERS * np.float32(0.1), shape))
    return file.constant(np.resize(_CODES, shape), [_WEIGHT_SCALE] * shape[axis], axis)


def _bias(file: _File, size: int) -> int:
    if file.precision != "int8":
        return file.constant(np.zeros(size, np.float32))
    return file.constant(np.zeros(size, np.int32), [_SCALE * _WEIGHT_SCALE] * size)


def _pack(file: _File, source: int, output: int) -> bytes:
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.name = file.tensors, file.operators, "main"
    graph.inputs, graph.outputs = [source], [output]
    model = schema.ModelT()
    model.version, model.description = 3, "probe"
    model.subgraphs, model.buffers = [graph], [schema.BufferT(), *file.buffers]
    model.operatorCodes = []
    for code in file.codes:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 3
        model.operatorCodes.append(entry)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
