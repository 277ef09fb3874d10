"""The benchmark that finds the first tensor which differs: inner tensors shown, differences counted."""

import numpy as np
import pytest

from benchmarks.emulated import divergence
from targets._shared import probes_tflite
from tests.runners import CONVOLUTION


@pytest.fixture
def quantized(tmp_path):
    """x -> softmax -> uint8 -> float."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    scale, zero = np.float32(1 / 255), np.uint8(0)
    graph = helper.make_graph(
        [
            helper.make_node("Softmax", ["x"], ["s"]),
            helper.make_node("QuantizeLinear", ["s", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [
            numpy_helper.from_array(np.asarray(scale), "scale"),
            numpy_helper.from_array(np.asarray(zero), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, str(tmp_path / "a.onnx"))
    return tmp_path / "a.onnx"


def _outputs(path, change=None):
    """The raw outputs of a file for one input; `change` is done to them, by number."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.linspace(0, 2, 8, dtype=np.float32)[None]})
    for number, value in (change or {}).items():
        if number < len(found):
            found[number].flat[0] += value
    return b"".join(value.tobytes() for value in found)


def test_an_element_a_step_apart_is_found(quantized, monkeypatch):
    monkeypatch.setattr(
        divergence, "both", lambda path, core: (_outputs(path, {2: np.uint8(1)}), _outputs(path))
    )
    rows = list(divergence.compared(quantized, "cortex-a53"))
    assert [(row["kind"], row["type"], row["differ"], row["largest"]) for row in rows] == [
        ("Softmax", "float32", 0, 0.0),
        ("QuantizeLinear", "uint8", 1, 1.0),
    ]
    text = divergence.summary({"file": "a.onnx", "core": "cortex-a53", "tensors": rows})
    assert "| 2 of 2 | QuantizeLinear | uint8 | 1 | 8 | 1 steps |" in text


def test_equal_integers_are_said_to_be_equal(quantized, monkeypatch):
    monkeypatch.setattr(
        divergence, "both", lambda path, core: (_outputs(path, {1: np.float32(1e-7)}), _outputs(path))
    )
    rows = list(divergence.compared(quantized, "cortex-a53"))
    assert rows[0]["differ"] == 1
    text = divergence.summary({"file": "a.onnx", "core": "cortex-a53", "tensors": rows})
    assert "All 1 integer tensors are equal." in text


def test_other_outputs_of_the_file_itself_are_an_error(quantized, monkeypatch):
    def both(path, core):
        shown = path != quantized
        return _outputs(path, {0: 1.0} if shown else None), _outputs(path)

    monkeypatch.setattr(divergence, "both", both)
    with pytest.raises(SystemExit, match="other outputs"):
        list(divergence.compared(quantized, "cortex-a53"))


def test_inner_tensors_of_a_tflite_file(tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    path = tmp_path / "a.tflite"
    probes_tflite.write(CONVOLUTION, "int8", path)
    inside = divergence.tensors(path)
    assert [tensor.kind for tensor in inside] == ["PAD"]
    assert {tensor.dtype for tensor in inside} == {np.int8}
    divergence.exposed(path, inside, tmp_path / "b.tflite")
    before, after = (
        interpreter.Interpreter(str(p)).get_output_details() for p in (path, tmp_path / "b.tflite")
    )
    assert [entry["index"] for entry in after] == [before[0]["index"], *(t.key for t in inside)]
    sizes = [int(np.prod(entry["shape"])) for entry in after[1:]]
    assert sizes == [tensor.elements for tensor in inside]
