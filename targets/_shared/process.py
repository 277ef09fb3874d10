"""Runs the measuring process and believes only a complete answer. Nothing is left running."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from toolchain.errors import DeviceError

MODULE = "targets._shared.worker"
Record = Mapping[str, Any]


def converse(
    request: Record,
    *,
    silence_seconds: float,
    on_record: Callable[[Record], None] = lambda _: None,
    module: str = MODULE,
) -> tuple[Record, ...]:
    """The records that the Python measuring process answered to `request`, which is sent as JSON.

    Arguments, result and errors otherwise as `follow`; `module` is what runs in the process.
    """
    command = [sys.executable, "-P", "-m", module]
    sent = json.dumps(request).encode()
    return follow(command, sent=sent, silence_seconds=silence_seconds, on_record=on_record)


def follow(
    command: Sequence[str],
    *,
    silence_seconds: float,
    sent: bytes = b"",
    on_record: Callable[[Record], None] = lambda _: None,
) -> tuple[Record, ...]:
    """The records that the measuring process `command` answered, from `begin` to `end`.

    Args:
        command: the program and its arguments.
        silence_seconds: longest wait for one record; a process silent for longer is killed.
        sent: written to its standard input.
        on_record: called for each record as it comes.

    Raises:
        DeviceError: the process failed, was killed, fell silent, or its answer is not complete.
    """
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=_environment(),
            start_new_session=True,
        )
        try:
            records = _listen(process, sent, silence_seconds, on_record)
            status = process.wait(timeout=silence_seconds)
        except subprocess.TimeoutExpired as error:
            raise DeviceError("the measuring process did not end after its answer") from error
        finally:
            _end(process)
        return _complete(records, status, noise)


def _listen(
    process: subprocess.Popen[bytes],
    sent: bytes,
    silence_seconds: float,
    on_record: Callable[[Record], None],
) -> list[Record]:
    """All records up to the end of the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(sent)
        process.stdin.close()
    except BrokenPipeError:
        pass  # It ended before reading; its exit status says why.
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    records: list[Record] = []
    while True:
        try:
            line = lines.get(timeout=silence_seconds)
        except queue.Empty:
            raise DeviceError(
                f"the measuring process said nothing for {silence_seconds:.0f} s and was ended",
                hint="a model that needs longer for one inference cannot be measured; is the machine asleep?",
            ) from None
        if not line:
            return records
        record = _parse(line)
        records.append(record)
        on_record(record)


def _pump(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _parse(line: bytes) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DeviceError("the measuring process answered something unreadable") from error
    if not isinstance(record, dict) or "type" not in record:
        raise DeviceError("the measuring process answered something unreadable")
    return record


def _complete(records: list[Record], status: int, noise: IO[bytes]) -> tuple[Record, ...]:
    """The records when they are complete, or the DeviceError that says why they are not."""
    last = records[-1] if records else None
    if last is not None and last["type"] == "error":
        raise DeviceError(f"measuring failed: {last.get('message', last.get('kind'))}")
    if status < 0:
        raise DeviceError(
            f"the measuring process was ended by {signal.Signals(-status).name}",
            hint="out of memory is the usual cause of SIGKILL" if status == -signal.SIGKILL else "",
        )
    if status != 0:
        raise DeviceError(f"the measuring process failed with status {status}: {_last_line(noise)}")
    if last is None or last["type"] != "end" or last["records"] != len(records) - 2:
        raise DeviceError("the measuring process stopped in the middle of its answer")
    return tuple(records)


def _last_line(noise: IO[bytes]) -> str:
    noise.seek(0)
    lines = [line.strip() for line in noise.read()[-4000:].decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and whatever it started; nothing to do when it has ended already."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment() -> dict[str, str]:
    """The environment of the measuring process: this package importable, libraries' own pools at one."""
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    return os.environ | {
        "PYTHONPATH": root if not known else f"{root}{os.pathsep}{known}",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
