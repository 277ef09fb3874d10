"""The measuring process: `python -P -m targets._shared.worker` with a JSON request on standard input.

Answers one JSON object per line on standard output: `begin`, one `trial` for each window or one
`probe` for each (session, group of layers), `end`; or `error`. Only an answer that ends in `end` is complete.
What libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

COLD: Final = 2
"""Runs that are not timed at the beginning of a turn: another model's weights are in the caches."""


def main() -> int:
    """Serve the one request of this process; the exit status is 0 only after `end` was written."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        affinity = _pin(request["threads"])
        _answer(answers, {"type": "begin", "affinity": affinity, "pid": os.getpid()})
        done = 0
        for record in _probes(request) if request["job"] == "probe" else _trials(request):
            _answer(answers, record)
            done += 1
        _answer(answers, {"type": "end", "records": done})
    except BrokenPipeError:
        return 1  # The parent is gone: nobody waits for the answer.
    except Exception as error:  # noqa: BLE001 - the edge of the process: whatever it was becomes a record
        _answer(answers, {"type": "error", "kind": type(error).__name__, "message": _one_line(error)})
        return 1
    return 0


def order(models: int, trial: int) -> list[int]:
    """In which order trial number `trial` runs the models: rotated by one each time, every other reversed."""
    turned = [(trial // 2 + k) % models for k in range(models)]
    return turned[::-1] if trial % 2 else turned


def _trials(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from targets._shared.engines import load_library

    models = request["models"]
    load_library(models[0]["runtime"])  # so that what a model takes is told from what its runtime takes
    for trial in range(request["trials"]):
        indices = order(len(models), trial)
        at_once = len(models) if request["turns"] > 1 else 1
        for first in range(0, len(models), at_once):
            for index, record in _trial(indices[first : first + at_once], trial, request):
                yield {"type": "trial", "trial": trial, "model": index} | record


def _probes(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Kernel times in nanoseconds of the layers of each group of files, session by session.

    A session of every group before the next of any: what disturbs the machine for a while then spoils one of
    a layer's sessions, not all.
    """
    from targets._shared.probing import PROBERS

    prober = PROBERS[request["runtime"]]
    for session in range(request["sessions"]):
        for index, group in enumerate(request["groups"]):
            times = prober(group["paths"], group["count"], request)
            yield {"type": "probe", "session": session, "group": index, "ns": times}


def _trial(
    indices: Sequence[int], trial: int, request: dict[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Fresh sessions, all open at once; windows of timed runs of each, in turns; times in nanoseconds."""
    turns = request["turns"]
    parts = [_begin(request["models"][index], trial, request) for index in indices]
    for window in range(request["windows"]):
        for part in parts:
            part.wall, part.cpu = [], []
        gc.collect()
        for turn in range(turns):
            for part in parts[:: -1 if turn % 2 else 1]:
                _timed(part, turn, request)
        peak = _memory("VmHWM")
        for index, part in zip(indices, parts, strict=True):
            times = {"wall_ns": part.wall, "cpu_ns": part.cpu, "min_ns": min(part.wall), "stride": 1}
            record = {"window": window, "version": part.version, "runs": len(part.wall)} | times
            if window == 0:
                used = None if part.resident is None or peak is None else peak - part.resident
                record |= part.once | {"peak_bytes": used}
            yield index, record


@dataclass
class Part:
    """One model's share of a trial."""

    run: Callable[[int], object]
    version: str
    resident: int | None
    once: dict[str, int]
    wall: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)


def _begin(model: dict[str, str], trial: int, request: dict[str, Any]) -> Part:
    """A fresh session up to the end of its warm-up: load, first inference."""
    from targets._shared.engines import OPENERS

    resident = _memory("VmRSS")
    start = time.perf_counter_ns()
    try:
        engine = OPENERS[model["runtime"]](model["path"], request["threads"], trial)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # runtimes raise types of their own; the file is what matters
        raise RuntimeError(f"{model['path']}: {_one_line(error)}") from error
    loaded = time.perf_counter_ns()
    engine.run(0)
    once = {"load_ns": loaded - start, "first_ns": time.perf_counter_ns() - loaded}
    _warm_up(engine.run, request["warmup"], request["warmup_seconds"])
    return Part(run=engine.run, version=engine.version, resident=resident, once=once)


def _warm_up(run: Callable[[int], object], runs: int, seconds: float) -> None:
    """At least `runs` runs, then until the mean of as many runs changes by under 2 %; `seconds` at most."""
    stop = time.perf_counter() + seconds
    previous = float("inf")
    while time.perf_counter() < stop:
        start = time.perf_counter()
        for k in range(runs):
            run(k)
            if time.perf_counter() > stop:
                return
        took = time.perf_counter() - start
        if abs(took - previous) <= 0.02 * previous:
            return
        previous = took


def _timed(part: Part, turn: int, request: dict[str, Any]) -> None:
    """One turn of a window: of all turns `least` runs and `seconds`, or `most` runs (0: no limit)."""
    cpu_clock = time.thread_time_ns if request["threads"] == 1 else time.process_time_ns
    turns = request["turns"]
    least, most = (-(-request[key] * (turn + 1) // turns) for key in ("least", "most"))
    wall, cpu, run = part.wall, part.cpu, part.run
    for number in range(COLD if turns > 1 else 0):
        run(number)
    clock = time.perf_counter_ns
    gc.disable()
    end = clock()
    stop = end + int(request["seconds"] / turns * 1e9)
    while not ((most and len(wall) >= most) or (end > stop and len(wall) >= least)):
        cpu_start = cpu_clock()
        start = clock()
        run(len(wall))
        end = clock()
        cpu.append(cpu_clock() - cpu_start)
        wall.append(end - start)
    gc.enable()


def _pin(threads: int) -> list[int] | None:
    """Keep a one-thread measurement on one core (the last one: the first serves interrupts)."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    if threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return sorted(os.sched_getaffinity(0))


def _memory(field: str) -> int | None:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most so far; None where Linux does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _answer(answers: TextIO, record: dict[str, Any]) -> None:
    answers.write(json.dumps(record) + "\n")
    answers.flush()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
