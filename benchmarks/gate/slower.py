"""A network made slower by a known amount of work: a convolution beside it, with an output of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def add_work(source: Path, target: Path, channels: int, padding: int) -> int:
    """`source` with a 3x3 convolution of the input to `channels`, averaged into an output of its own.

    Nothing of the network changes, and nothing can be left out: the output is asked for. Returns the
    multiply-accumulates added.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(source))
    given = model.graph.input[0]
    _, depth, height, width = (d.dim_value for d in given.type.tensor_type.shape.dim)
    weight = np.random.default_rng(0).standard_normal((channels, depth, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "extra.weight"))
    model.graph.node.extend(
        [
            helper.make_node(
                "Conv", [given.name, "extra.weight"], ["extra.y"], kernel_shape=[3, 3], pads=[padding] * 4
            ),
            helper.make_node("GlobalAveragePool", ["extra.y"], ["extra"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, None))
    onnx.save(model, str(target))
    shrunk = 2 - 2 * padding
    return int(9 * depth * channels * (height - shrunk) * (width - shrunk))
