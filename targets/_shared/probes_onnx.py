"""ONNX files for timing single layers: many layers side by side, told apart by ONNX Runtime's own profiler.

Given: layers and a precision. Result: one graph in which layer k is the node (or nodes) named `probe<k>`.
In int8 every layer stands between QuantizeLinear / DequantizeLinear pairs exactly as the quantizer writes
them (uint8 activations, int8 weights per channel), so that the runtime fuses it into its integer kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.values import Layer, Precision

OPSET = 18
# A node that computes next to nothing: what its profile shows is the cost of profiling and dispatch.
IDLE = "idle"
# Weights repeat these: which numbers they are does not matter for the time, drawing them would take it.
_NUMBERS = np.random.default_rng(0).standard_normal(4093, dtype=np.float32)
_CODES = np.random.default_rng(0).integers(-127, 128, 4093, dtype=np.int8)


@dataclass(kw_only=True)
class _Graph:
    """The graph while it is made; `inputs` holds one float input for every shape, used by all its layers."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: dict[tuple[int, ...], str] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output


def possible(layer: Layer) -> bool:
    """Whether this file knows how to write the layer."""
    return layer.kind == "linear" or 1 <= len(layer.kernel) <= 3


def write(layers: Sequence[Layer], precision: Precision, path: Path) -> None:
    """One file with all `layers` side by side, batch 1."""
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    graph.inputs[(1,)] = IDLE + "_in"
    graph.outputs.append(graph.node("Abs", [IDLE + "_in"], IDLE))
    for number, layer in enumerate(layers):
        _layer(graph, number, layer, precision)
    made = helper.make_graph(
        graph.nodes,
        "probes",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for s, n in graph.inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in graph.outputs],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    onnx.save(model, str(path))


def _layer(graph: _Graph, number: int, layer: Layer, precision: Precision) -> None:
    rows = () if layer.tokens == 1 else (layer.tokens,)
    spatial = layer.input_size if layer.kind == "conv" else ()
    shape = (1, layer.in_channels, *spatial) if layer.kind == "conv" else (1, *rows, layer.in_channels)
    source = _source(graph, shape, precision)
    kind, attributes, weight_shape, axis = _operator(layer)
    weight = _weight(graph, f"w{number}", weight_shape, axis, precision)
    inputs = [source, weight]
    with_bias = layer.bias and kind != "MatMul"
    if with_bias:
        inputs.append(_bias(graph, f"b{number}", layer.out_channels, precision))
    result = graph.node(kind, inputs, f"probe{number}", **attributes)
    if layer.bias and not with_bias:
        bias = graph.constant(f"b{number}", np.zeros(layer.out_channels, np.float32))
        result = graph.node("Add", [result, bias], f"probe{number}_bias")
    if precision == "int8":
        levels = _levels(graph)
        coded = graph.node("QuantizeLinear", [result, *levels], f"code{number}")
        result = graph.node("DequantizeLinear", [coded, *levels], f"decode{number}")
    # Only a slice leaves the graph, so that all layers write into the same, near memory, as in a network.
    ends = [_once(graph, name, np.asarray([value])) for name, value in (("first", 0), ("second", 1))]
    graph.outputs.append(graph.node("Slice", [result, *ends, ends[1]], f"part{number}"))


def _operator(layer: Layer) -> tuple[str, dict[str, Any], tuple[int, ...], int]:
    """Operator, attributes, weight shape, and the axis of the weight that counts output channels."""
    inputs, outputs = layer.in_channels, layer.out_channels
    if layer.kind == "linear" and layer.tokens == 1:
        return "Gemm", {"transB": 1}, (outputs, inputs), 0
    if layer.kind == "linear":
        return "MatMul", {}, (inputs, outputs), 1
    attributes: dict[str, Any] = {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": (*layer.padding, *layer.padding),
        "dilations": layer.dilation,
        "group": layer.groups,
    }
    if layer.transposed:
        return "ConvTranspose", attributes, (inputs, outputs // layer.groups, *layer.kernel), 1
    return "Conv", attributes, (outputs, inputs // layer.groups, *layer.kernel), 0


def _source(graph: _Graph, shape: tuple[int, ...], precision: Precision) -> str:
    """The float input of this shape, or its coded and decoded form; shared by all layers that read it."""
    known = shape in graph.inputs
    name = graph.inputs.setdefault(shape, "x" + "_".join(map(str, shape)))
    if precision != "int8":
        return name
    if not known:
        coded = graph.node("QuantizeLinear", [name, *_levels(graph)], f"{name}_coded")
        graph.node("DequantizeLinear", [coded, *_levels(graph)], f"{name}_decoded")
    return f"{name}_decoded"


def _once(graph: _Graph, name: str, value: np.ndarray[Any, Any]) -> str:
    """A constant that all layers share."""
    return name if name in graph.shared else graph.constant(graph.shared.setdefault(name, name), value)


def _levels(graph: _Graph) -> tuple[str, str]:
    """Scale and zero point of all activations."""
    scale = _once(graph, "scale", np.asarray(0.03, np.float32))
    return scale, _once(graph, "zero", np.asarray(128, np.uint8))


def _weight(graph: _Graph, name: str, shape: tuple[int, ...], axis: int, precision: Precision) -> str:
    if precision != "int8":
        return graph.constant(name, np.resize(_NUMBERS * np.float32(0.1), shape))
    coded = graph.constant(f"{name}_coded", np.resize(_CODES, shape))
    scale = graph.constant(f"{name}_scale", np.full(shape[axis], 0.01, np.float32))
    zero = graph.constant(f"{name}_zero", np.zeros(shape[axis], np.int8))
    return graph.node("DequantizeLinear", [coded, scale, zero], name, axis=axis)


def _bias(graph: _Graph, name: str, size: int, precision: Precision) -> str:
    if precision != "int8":
        return graph.constant(name, np.zeros(size, np.float32))
    coded = graph.constant(f"{name}_coded", np.zeros(size, np.int32))
    scale = graph.constant(f"{name}_scale", np.full(size, 0.0003, np.float32))
    zero = graph.constant(f"{name}_zero", np.zeros(size, np.int32))
    return graph.node("DequantizeLinear", [coded, scale, zero], name, axis=0)
