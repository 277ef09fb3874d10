"""Times the files of `probes_onnx` and `probes_tflite` inside the measuring process: kernel time a layer.

Both runtimes are asked for kernels alone: what a call or a node costs besides (dispatch, and the profiler
itself) is measured on a layer that computes nothing, and subtracted.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

T = TypeVar("T")
LEAST: Final = 8
_PROBE: Final = re.compile(r"probe(\d+)(?!\d)")
# Nodes that stand around a probe only because it stands alone: layout changes and (de)quantization.
_AROUND: Final = frozenset(
    {"ReorderInput", "ReorderOutput", "Transpose", "QuantizeLinear", "DequantizeLinear"}
)


def probe_onnxruntime(paths: Sequence[str], count: int, request: dict[str, Any]) -> list[float]:
    """Nanoseconds of the `count` layers of one file, from the runtime's profiler in one session."""
    return _profile(paths[0], count, request)


def probe_litert(paths: Sequence[str], count: int, request: dict[str, Any]) -> list[float]:
    """Nanoseconds of `count` files of one layer each, less what the first file, without a layer, takes.

    All files are open at once and run in turns, so that a layer's weights are as far from the processor as
    between two inferences of a network; its activations are near, as if the layer before had just written.
    """
    from ai_edge_litert.interpreter import Interpreter

    rng = np.random.default_rng(0)
    turns: list[Callable[[], int]] = []
    for path in paths:
        interpreter = Interpreter(model_path=path, num_threads=request["threads"])
        interpreter.allocate_tensors()
        turns.append(_turn(interpreter, rng))
    rounds = _rounds(lambda: [turn() for turn in turns], request["runs"], request["seconds"])
    idle, *times = np.median(np.asarray(rounds[len(rounds) // 4 :]), axis=0).tolist()
    assert len(times) == count
    return [max(ns - idle, 0.0) for ns in times]


PROBERS: dict[str, Callable[[Sequence[str], int, dict[str, Any]], list[float]]] = {
    "onnxruntime": probe_onnxruntime,
    "litert": probe_litert,
}


def _turn(interpreter: Any, rng: np.random.Generator) -> Callable[[], int]:
    """One timed call of an interpreter, its input and output touched before."""
    (source,), results = interpreter.get_input_details(), interpreter.get_output_details()
    value = rng.integers(-100, 100, source["shape"]).astype(source["dtype"])
    into, out = source["index"], results[0]["index"]

    def turn() -> int:
        interpreter.set_tensor(into, value)
        interpreter.get_tensor(out)
        start = time.perf_counter_ns()
        interpreter.invoke()
        return time.perf_counter_ns() - start

    return turn


def _profile(path: str, count: int, request: dict[str, Any]) -> list[float]:
    """One profiled session: the middle half of every node's times, less what an idle node shows."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "probe")
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        feed = {i.name: rng.standard_normal(i.shape, dtype=np.float32) for i in session.get_inputs()}
        _rounds(lambda: session.run(None, feed), request["runs"], request["seconds"])
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[str, list[float]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        if event["args"]["op_name"] not in _AROUND:
            nodes.setdefault(name.removesuffix("_kernel_time"), []).append(float(event["dur"]))
    idle = _middle(nodes["idle"])
    times = [0.0] * count
    for name, durations in nodes.items():
        found = _PROBE.match(name)
        if found:
            # The profiler counts whole microseconds; the mean over many runs resolves finer.
            times[int(found[1])] += max(_middle(durations) - idle, 0.0) * 1e3
    return times


def _middle(durations: Sequence[float]) -> float:
    """Mean of the middle half, the first (cold) quarter of the runs left out."""
    warm = np.sort(np.asarray(durations[len(durations) // 4 :]))
    return float(np.mean(warm[len(warm) // 4 : max(len(warm) * 3 // 4, len(warm) // 4 + 1)]))


def _rounds(run: Callable[[], T], runs: int, seconds: float) -> list[T]:
    """Results of `runs` calls, fewer (but `LEAST`) where `seconds` are over first."""
    found: list[T] = []
    stop = time.perf_counter() + seconds
    while len(found) < runs and (len(found) < LEAST or time.perf_counter() < stop):
        found.append(run())
    return found
