"""What the profile of a file of probes says about every layer, changes of layout included."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from targets._shared.probes_onnx import write
from targets._shared.probing import _of_probes
from toolchain.values import Layer

IDLE_US = 2.0
EACH_US = 0.001
"""A change of layout, for each element."""


def event(name, op, us, source, result):
    return {
        "name": f"{name}_kernel_time",
        "dur": us + IDLE_US,
        "args": {
            "op_name": op,
            "input_type_shape": [{"float": list(source)}],
            "output_type_shape": [{"float": list(result)}],
        },
    }


def profile(*events):
    """Eight runs, as the profiler writes them."""
    return [event("idle", "Abs", 0.0, (1,), (1,)), *events] * 8


WIDE, PADDED, FEW = (1, 20, 8, 8), (1, 32, 8, 8), (1, 12, 8, 8)
INTO = event("ReorderInput", "ReorderInput", 5.0, WIDE, PADDED)
BACK = event("ReorderOutput", "ReorderOutput", EACH_US * 20 * 64, PADDED, WIDE)


def test_a_kernel_that_takes_blocks_is_its_own_time():
    took = _of_probes(profile(INTO, event("probe0_nchwc", "Conv", 30.0, PADDED, PADDED), BACK), 1)
    assert took == [pytest.approx(30e3)]


def test_a_kernel_that_takes_a_plain_input_has_it_brought_back():
    few = event("probe1_nchwc", "Conv", 10.0, FEW, PADDED)
    took = _of_probes(profile(INTO, event("probe0_nchwc", "Conv", 30.0, PADDED, PADDED), few, BACK), 2)
    assert took == [pytest.approx(30e3), pytest.approx(10e3 + 1e3 * EACH_US * 12 * 64)]


def test_an_image_is_plain_anyway_and_other_operators_have_no_blocks():
    image = event("probe0_nchwc", "Conv", 7.0, (1, 3, 8, 8), PADDED)
    linear = event("probe1", "Gemm", 3.0, (1, 12), (1, 10))
    bias = event("probe1_bias", "Add", 1.0, (1, 10), (10,))
    assert _of_probes(profile(image, linear, bias, BACK), 2) == [pytest.approx(7e3), pytest.approx(4e3)]


def test_where_nothing_changes_layout_nothing_is_added():
    assert _of_probes(profile(event("probe0", "Conv", 9.0, FEW, WIDE)), 1) == [pytest.approx(9e3)]


def test_the_runtime_itself_names_its_nodes_so(tmp_path):
    """The profile of this machine's runtime has what the reading of it rests on."""
    shared = {"kind": "conv", "weight": "w", "kernel": (3, 3), "stride": (1, 1), "padding": (1, 1)}
    sizes = {"dilation": (1, 1), "input_size": (8, 8), "output_size": (8, 8)}
    layers = [Layer(node=f"c{n}", in_channels=n, out_channels=32, **shared, **sizes) for n in (4, 32)]
    write(layers, "fp32", tmp_path / "probes.onnx")
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(str(tmp_path / "probes.onnx"), options)
    feed = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()}
    for _ in range(8):
        session.run(None, feed)
    found = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    events = [e for e in found if e.get("cat") == "Node" and "kernel_time" in e["name"]]
    took = _of_probes(events, 2)
    assert len(took) == 2
    assert all(np.isfinite(ns) and ns >= 0 for ns in took)
    names = {str(e["name"]).removesuffix("_kernel_time").removesuffix("_nchwc") for e in events}
    assert {"probe0", "probe1", "idle"} <= names
