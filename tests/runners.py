"""For tests of the C runner: built once, small models, jobs for what is installed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from targets._shared import runner
from targets._shared.runner import Job, Library, Model
from toolchain.errors import DeviceError
from toolchain.values import Layer

CONVOLUTION = Layer(
    node="conv",
    kind="conv",
    weight="conv.weight",
    in_channels=8,
    out_channels=16,
    kernel=(3, 3),
    stride=(2, 2),
    padding=(1, 1),
    dilation=(1, 1),
    input_size=(12, 12),
    output_size=(6, 6),
)


BOTH = pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])


def binary(arch: str = "") -> Path:
    """The runner, or a skip with the reason why it cannot be built here."""
    try:
        return runner.runner(arch)
    except DeviceError as error:
        pytest.skip(f"{error.message}: {error.hint}")


def library(runtime: str) -> Library:
    """The installed library of a runtime, or a skip."""
    found = runner.installed_library(runtime)
    if found is None:
        pytest.skip(f"no library of {runtime} that the runner knows is installed")
    return found


def small(runtime: str, folder: Path) -> Path:
    """A model for `runtime`."""
    return small_onnx(folder / "a.onnx") if runtime == "onnxruntime" else small_tflite(folder / "a.tflite")


def small_onnx(path: Path, width: int = 4, elements: str = "FLOAT") -> Path:
    """A convolution with random weights and a ReLU, dynamic batch."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    kind = getattr(TensorProto, elements)
    weight = np.random.default_rng(0).standard_normal((width, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, str(path))
    return path


def small_tflite(path: Path) -> Path:
    """A convolution in float."""
    from targets._shared import probes_tflite

    probes_tflite.write(CONVOLUTION, "fp32", path)
    return path


def job_for(runtime: str, path: Path, **settings: Any) -> Job:
    """A short job for one model."""
    short = {"trials": 1, "least": 5, "most": 5, "seconds": 5.0, "warmup": 2, "warmup_seconds": 0.2}
    model = Model(runtime=runtime, path=str(path))
    return Job(libraries=(library(runtime),), models=(model,), **(short | settings))


def start(job: Job | str, folder: Path, *more: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run a job (or a job file's text) to its end."""
    file = folder / "job"
    file.write_text(job if isinstance(job, str) else job.text())
    return subprocess.run(
        [binary(), str(file), *more], capture_output=True, text=True, check=False, timeout=120, **kwargs
    )


def records(text: str) -> list[Mapping[str, Any]]:
    """The records of an answer."""
    return [json.loads(line) for line in text.splitlines()]


def trials(text: str) -> list[dict[str, Any]]:
    """The trials of an answer."""
    return [record for record in records(text) if record["type"] == "trial"]
