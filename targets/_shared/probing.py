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
from typing import Any

import numpy as np

_PROBE = re.compile(r"probe(\d+)(?!\d)")
# Nodes that stand around a probe only because it stands alone: layout changes and (de)quantization.
_AROUND = frozenset({"ReorderInput", "ReorderOutput", "Transpose", "QuantizeLinear", "DequantizeLinear"})


def probe_onnxruntime(path: str, count: int, request: dict[str, Any]) -> list[float]:
    """Nanoseconds of the `count` layers of one file, from the runtime's profiler."""
    rounds = [_profile(path, count, request) for _ in range(request["sessions"])]
    return [float(np.median(column)) for column in zip(*rounds, strict=True)]


def probe_litert(path: str, count: int, request: dict[str, Any]) -> list[float]:
    """Nanoseconds of one call of the file; the caller knows how many layers it holds."""
    from ai_edge_litert.interpreter import Interpreter

    times = []
    for _ in range(request["sessions"]):
        interpreter = Interpreter(model_path=path, num_threads=request["threads"])
        interpreter.allocate_tensors()
        _repeat(interpreter.invoke, request["runs"] // 4 + 1, request["seconds"] / 4)
        times.append(float(np.median(_repeat(interpreter.invoke, request["runs"], request["seconds"]))))
    return [float(np.median(times))] * count


PROBERS: dict[str, Callable[[str, int, dict[str, Any]], list[float]]] = {
    "onnxruntime": probe_onnxruntime,
    "litert": probe_litert,
}


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
        _repeat(lambda: session.run(None, feed), request["runs"], request["seconds"])
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


def _repeat(run: Callable[[], object], runs: int, seconds: float) -> list[int]:
    """Nanoseconds of `runs` calls, at least three, fewer than `runs` where `seconds` are over first."""
    times: list[int] = []
    stop = time.perf_counter() + seconds
    while len(times) < runs and (len(times) < 3 or time.perf_counter() < stop):
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    return times
