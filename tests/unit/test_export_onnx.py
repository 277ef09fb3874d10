"""A simplified ONNX model is taken only where it is smaller and computes the same."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
onnxsim = pytest.importorskip("onnxsim")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from toolchain.export.onnx import _same_outputs, _simplified  # noqa: E402


def scaled(factor: float, *, detour: bool = True):
    """y = x * factor, [batch, 3]; the detour adds two transpositions that cancel."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y" if not detour else "a"])]
    if detour:
        nodes.append(helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0]))
        nodes.append(helper.make_node("Transpose", ["b"], ["y"], perm=[1, 0]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([factor], dtype=np.float32), "factor")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(("other", "same"), [(2.0, True), (2.001, False)])
def test_outputs_are_compared(other, same):
    assert _same_outputs(scaled(2.0), scaled(other, detour=False)) is same


def test_what_cancels_is_gone():
    assert [n.op_type for n in _simplified(scaled(2.0)).graph.node] == ["Mul"]


def test_a_simplification_that_changes_the_outputs_is_dropped(monkeypatch):
    model = scaled(2.0)
    monkeypatch.setattr(onnxsim, "simplify", lambda *_, **__: (scaled(3.0, detour=False), True))
    assert _simplified(model) is model
