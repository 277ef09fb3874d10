"""TFLite Micro: whether the interpreter of microcontrollers takes a TFLite file, in how much memory.

It is the one of PyPI's tflite-micro: its reference kernels, compiled for this machine. It runs in a process
of its own, because it ends the process where it does not know how to go on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from toolchain.errors import ConversionError, InputError
from toolchain.foreign import require
from toolchain.values import Check

PACKAGES: Final = ("tflite_micro", "ai_edge_litert")
_ROOM: Final = 1 << 26
"""The first inference gets this many bytes, or ten times the file where that is more."""


@dataclass(frozen=True, kw_only=True)
class Micro:
    """`arena_bytes` is the smallest arena in which the file ran here, to 1 %.

    None where it does not run; `refused` says why. Found on this 64-bit machine: a 32-bit one, whose pointers
    take half, needs a little less.
    `difference` is the largest one from LiteRT's outputs over their largest value, for one random input.
    """

    version: str
    arena_bytes: int | None
    refused: str = ""
    difference: float | None = None


def require_micro(formats: Sequence[str]) -> None:
    """See to it, before any work, that a limit on the arena can be checked.

    Raises:
        InputError: no TFLite file is asked for, or a package is missing.
    """
    if "tflite" not in formats:
        raise InputError("--budget-ram is about TFLite files", hint="--formats tflite")
    require(PACKAGES, extra="micro,tflite", purpose="trying TFLite Micro")


def check_micro(model: Path, budget_bytes: int) -> Check:
    """Whether the file runs in an arena of `budget_bytes`."""
    fit, name = try_micro(model), "TFLite Micro"
    if fit.arena_bytes is None:
        return Check(name=name, subject=model.name, status="fail", detail=f"it does not run: {fit.refused}")
    return Check(
        name=name,
        subject=model.name,
        status="pass" if fit.arena_bytes <= budget_bytes else "fail",
        value=fit.arena_bytes,
        limit=budget_bytes,
        unit="bytes of arena",
        detail=f"largest difference from LiteRT {fit.difference:.1e} of the largest output",
    )


def try_micro(model: Path) -> Micro:
    """Run a .tflite file in TFLite Micro.

    Raises:
        InputError: the package is missing.
        ConversionError: the interpreter answers nothing that could be understood.
    """
    require(PACKAGES, extra="micro,tflite", purpose="trying TFLite Micro")
    first = _worker_says(model, max(_ROOM, 10 * model.stat().st_size))
    if first.returncode != 0:
        return Micro(version=_version(), arena_bytes=None, refused=_reason(first.stderr, model))
    total = re.search(r"Arena allocation total (\d+) bytes", first.stderr)
    if total is None:
        raise ConversionError(f"TFLite Micro does not say what it allocates for {model.name}")
    arena, again = _least(model, int(total[1]))
    return Micro(version=_version(), arena_bytes=arena, difference=json.loads(again.stdout.splitlines()[-1]))


def _least(model: Path, allocated: int) -> tuple[int, subprocess.CompletedProcess[str]]:
    """The smallest arena in which the file runs, to 1 %, and what was said there.

    What stays allocated is mostly enough; some files need more while they are opened.
    """
    low, high = allocated, allocated
    while (best := _worker_says(model, high)).returncode != 0:
        low, high = high, 5 * high // 4
    while high - low > high // 100:
        middle = (low + high) // 2
        said = _worker_says(model, middle)
        if said.returncode == 0:
            high, best = middle, said
        else:
            low = middle
    return high, best


def _worker_says(model: Path, arena: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", __name__, str(model.resolve()), str(arena)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("tflite-micro")


def _reason(said: str, model: Path) -> str:
    """Why the interpreter ended, in its own words.

    Raises:
        ConversionError: it said nothing.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    unknown = re.search(r"find op for builtin opcode '(\w+)'", said)
    if unknown:
        return f"it has no operator {unknown[1]}"
    told = [line for line in lines if not line.startswith(("File ", "Traceback", "^", "~"))]
    if not told:
        raise ConversionError(f"TFLite Micro ended on {model.name} without a word")
    # The interpreter's own line comes before Python's.
    own = [line for line in told if not re.match(r"\w*Error:|raise |self\.|return |_?\w+\(", line)]
    return (own or told)[-1][:200]


def _worker(path: str, arena: int) -> None:
    """One inference in an arena of this size; allocations to stderr, the difference from LiteRT to stdout."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from tflite_micro import runtime

    model = Path(path).read_bytes()
    micro = runtime.Interpreter.from_bytes(model, arena_size=arena)
    known = Interpreter(model_content=model)
    known.allocate_tensors()
    rng = np.random.default_rng(0)
    for number, port in enumerate(known.get_input_details()):
        shape, kind = port["shape"], np.dtype(port["dtype"])
        whole = kind.kind in "iub"
        value = (rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)).astype(kind)
        known.set_tensor(port["index"], value)
        micro.set_input(value, number)
    known.invoke()
    micro.invoke()
    micro.print_allocations()
    differences = []
    for number, port in enumerate(known.get_output_details()):
        wanted = known.get_tensor(port["index"]).astype(np.float64)
        found = np.asarray(micro.get_output(number), np.float64)
        largest = max(float(np.max(np.abs(wanted))), 1e-30)
        differences.append(float(np.max(np.abs(found - wanted))) / largest)
    sys.stdout.write(json.dumps(max(differences)) + "\n")


if __name__ == "__main__":
    _worker(sys.argv[1], int(sys.argv[2]))
