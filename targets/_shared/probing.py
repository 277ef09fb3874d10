"""Times the files of `probes_onnx` and `probes_tflite` inside the measuring process: kernel time a layer.

Both runtimes are asked for kernels alone: what a call or a node costs besides (dispatch, and the profiler
itself) is measured on a layer that computes nothing, and subtracted.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

T = TypeVar("T")
LEAST: Final = 8
IMAGE: Final = 3
"""Channels of an image, the input of a network."""
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
    times = of_turns(rounds)
    assert len(times) == count
    return times


def of_turns(rounds: Sequence[Sequence[int]]) -> list[float]:
    """Nanoseconds of every layer from those of all files [round][file], the first of them without a layer."""
    idle, *times = np.median(np.asarray(rounds[len(rounds) // 4 :]), axis=0).tolist()
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
        return of_profile(Path(session.end_profiling()).read_bytes(), count)


def of_profile(text: bytes, count: int) -> list[float]:
    """Nanoseconds of every probe of one profiled session, from the file that ONNX Runtime leaves.

    Raises:
        ValueError: it is not such a file.
    """
    events = json.loads(text)
    nodes = [e for e in events if e.get("cat") == "Node" and str(e["name"]).endswith("_kernel_time")]
    return _of_probes(nodes, count)


def _of_probes(events: Sequence[Mapping[str, Any]], count: int) -> list[float]:
    """Nanoseconds of every probe: its nodes, and the changes of layout that a network makes for its sake.

    Between convolutions ONNX Runtime keeps channels in blocks; one that cannot take them so (fewer channels
    than a block) has its input brought back first. Alone it stands on a plain input, so that its share is
    added: what a change of layout takes here for each element. An image is plain to begin with.
    """
    durations: dict[str, list[float]] = {}
    nodes: dict[str, Mapping[str, Any]] = {}
    for event in events:
        name = str(event["name"]).removesuffix("_kernel_time")
        durations.setdefault(name, []).append(float(event["dur"]))
        nodes[name] = event["args"]
    idle = _middle(durations["idle"])
    took = {name: max(_middle(found) - idle, 0.0) for name, found in durations.items()}
    kinds = {name: str(node["op_name"]) for name, node in nodes.items()}
    changes = [name for name in nodes if kinds[name] == "ReorderOutput"]
    blocked = {_sizes(nodes[name], "output") for name in nodes if kinds[name] == "ReorderInput"}
    elements = sum(math.prod(_sizes(nodes[name], "output")) for name in changes)
    each = sum(took[name] for name in changes) / elements if elements else 0.0
    times = [0.0] * count
    for name, node in nodes.items():
        found = _PROBE.match(name)
        if not found or kinds[name] in _AROUND:
            continue
        # The profiler counts whole microseconds; the mean over many runs resolves finer.
        us = took[name]
        source = _sizes(node, "input")
        if kinds[name] == "Conv" and source not in blocked and source[1] > IMAGE:
            us += each * math.prod(source)
        times[int(found[1])] += us * 1e3
    return times


def _sizes(node: Mapping[str, Any], side: str) -> tuple[int, ...]:
    """Sizes of a node's first input or output, as the profiler saw it."""
    (found,) = node[f"{side}_type_shape"][0].values()
    return tuple(found)


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
