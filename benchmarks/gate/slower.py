"""A network made slower by a known amount of work: some of its own convolutions once more, beside it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np


def add_work(source: Path, target: Path, copied: Sequence[int]) -> int:
    """`source` with a second convolution beside each of the `copied` ones (by number, in the file's order).

    It has the same input and shape and weights of its own, and is averaged into an output of its own: nothing
    of the network changes, and nothing can be left out. Work of the network's own kind slows it by the same
    share whatever else uses the machine's memory at the time. Returns the multiply-accumulates added.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper, shape_inference

    model = onnx.load(str(source))
    known = shape_inference.infer_shapes(model).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in known.value_info}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    rng, macs = np.random.default_rng(0), 0
    for number in copied:
        node = convolutions[number]
        shape = list(weights[node.input[1]].dims)
        values = (rng.standard_normal(shape) / prod(shape[1:]) ** 0.5).astype(np.float32)
        name = f"extra{number}"
        model.graph.initializer.append(numpy_helper.from_array(values, f"{name}.weight"))
        copy = helper.make_node("Conv", [node.input[0], f"{name}.weight"], [f"{name}.y"])
        copy.attribute.extend(node.attribute)
        model.graph.node.extend([copy, helper.make_node("GlobalAveragePool", [f"{name}.y"], [name])])
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        macs += prod(shape) * prod(shapes[node.output[0]][2:])
    onnx.save(model, str(target))
    return macs
