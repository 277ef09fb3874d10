"""The runtimes that run in a measuring process: open a file, feed it, run it. No torch, no toolchain here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
POOL = 4


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One opened model. `run(k)` does a whole inference on input set k % POOL: inputs in, outputs out."""

    run: Callable[[int], object]
    version: str


def open_onnxruntime(path: str, threads: int, seed: int) -> Engine:
    """A session with all graph optimisations, `threads` threads and no spinning.

    Inputs and outputs are tensors of the runtime, as the C runner hands them over: no conversion of arrays.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    # A spinning pool burns the other core and, where cores are few, the one that works.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    bound = [session.io_binding() for _ in range(POOL)]
    for binding in bound:
        for entry in session.get_inputs():
            values = _sample(rng, _sizes(entry.shape), _onnx_dtype(entry.type))
            binding.bind_cpu_input(entry.name, values)
        for entry in session.get_outputs():
            binding.bind_output(entry.name)
    return Engine(run=lambda k: session.run_with_iobinding(bound[k % POOL]), version=ort.__version__)


def open_litert(path: str, threads: int, seed: int) -> Engine:
    """An interpreter with the XNNPACK delegate and `threads` threads."""
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    rng = np.random.default_rng(seed)
    pool = [[_sample(rng, tuple(i["shape"]), np.dtype(i["dtype"])) for i in inputs] for _ in range(POOL)]
    into = [int(i["index"]) for i in inputs]
    out = [int(o["index"]) for o in outputs]

    def run(k: int) -> object:
        for index, value in zip(into, pool[k % POOL], strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in out]

    return Engine(run=run, version=version("ai-edge-litert"))


OPENERS: dict[str, Callable[[str, int, int], Engine]] = {
    "onnxruntime": open_onnxruntime,
    "litert": open_litert,
}

_LIBRARIES = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert.interpreter"}


def load_library(runtime: str) -> None:
    """Import the runtime, so that what a model needs can be told from what its runtime needs."""
    importlib.import_module(_LIBRARIES[runtime])


def _sizes(shape: list[int | str | None]) -> tuple[int, ...]:
    """The input's shape with every dynamic dimension at 1."""
    return tuple(size if isinstance(size, int) and size > 0 else 1 for size in shape)


def _sample(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """One input: normal values, or 0 and 1 for integers, which are valid wherever an index is meant."""
    if dtype.kind == "f":
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    return rng.integers(0, 2, size=shape).astype(dtype)


def _onnx_dtype(name: str) -> np.dtype[Any]:
    """`tensor(float)` -> float32 and so on."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    known = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool"}
    return np.dtype(known.get(inner, inner))
