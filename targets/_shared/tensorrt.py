"""TensorRT on a device that has it: `trtexec` is driven there, and what it exports is read.

A file's engine is built there once and kept by the file's content, then timed in fresh processes, files in
turns. A run is what trtexec calls latency: inputs copied to the GPU, computed, outputs copied back. The
host's own work between two inferences is not in it.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from targets._shared.shell import Shell
from toolchain.contracts import ModelFile, Runtime, Tier
from toolchain.errors import DeviceError

RUNTIME: Final = Runtime(name="tensorrt", format="onnx", precisions=("fp32",), align=8, probed=False)
PLACES: Final = ("trtexec", "/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
BUILD: Final = ("--fp16", "--memPoolSize=workspace:1024", "--device=0")
"""Kernels of half precision are allowed, as TensorRT is used on these boards."""
WARMUP_MS: Final = 500
RUN: Final = ("--device=0", "--useSpinWait", "--avgRuns=1", f"--warmUp={WARMUP_MS}")
LONGEST: Final = 7200
"""Seconds that one call of trtexec may take; building a large network takes many minutes on these boards."""
TIMES: Final = "times"
_VERSION: Final = re.compile(r"\[TensorRT v(\d+)\]")

_SCRIPT: Final = """fail() {{
  printf '{{"status":"failed","error":"%s","records":0}}' "$(echo "$1" | tr -d '"\\\\')" > .result
  mv .result result.json
  exit 1
}}
said() {{ grep -F '[E]' "$1" | tail -n 1 | cut -c 1-300; }}
exec 9> {lock}
command -v flock > /dev/null && {{ flock -n 9 || fail 'another measurement is running on this device'; }}
run() {{ timeout -k 10 {longest} "$@" & child=$!; wait "$child"; }}
trap 'kill "$child" 2> /dev/null; exit 143' TERM
note() {{ printf '{{"type":"%s","records":0,"conditions":%s}}\\n' "$1" "$({runner} --conditions)"; }}
note begin > samples.ndjson
{steps}
note end >> samples.ndjson
printf '{{"status":"complete","error":null,"records":0}}' > .result
mv .result result.json
"""


def trtexec_of(shell: Shell) -> str | None:
    """Where trtexec is on the device; None where it is not."""
    looking = "\n".join(f"command -v {place} && exit 0" for place in PLACES)
    said = shell.run(f"{looking}\nexit 1")
    return said.out.decode(errors="replace").strip() or None if said.status == 0 else None


def script(
    trtexec: str,
    files: Sequence[tuple[ModelFile, str]],
    shapes: Sequence[Mapping[str, Sequence[int]]],
    tier: Tier,
    *,
    folder: str,
    runner: str,
) -> str:
    """Shell text that measures `files` (each with its place on the device) as `tier` says.

    Args:
        trtexec: the program, on the device.
        files: what to measure.
        shapes: for each file the inputs of dynamic shape and the sizes to run them at.
        tier: how long; its parts become processes.
        folder: edgefit's folder on the device.
        runner: the runner there, for the device's state.
    """
    steps: list[str] = []
    engines = []
    for number, ((file, path), sizes) in enumerate(zip(files, shapes, strict=True)):
        given = ",".join(f"{name}:{'x'.join(map(str, size))}" for name, size in sizes.items())
        dynamic = [f"--{kind}Shapes={given}" for kind in ("min", "opt", "max")] if given else []
        engine = f"{folder}/files/{file.sha256}.trt"
        engines.append((engine, [f"--shapes={given}"] if given else []))
        words = [trtexec, f"--onnx={path}", f"--saveEngine={engine}.partial", *BUILD, *dynamic]
        words += ["--iterations=1", "--duration=0", "--warmUp=0"]
        # An engine belongs to the TensorRT that built it: one that is not newer than trtexec is built anew.
        steps.append(
            f"[ {shlex.quote(engine)} -nt {shlex.quote(trtexec)} ] ||"
            f" {{ run {shlex.join(words)} > build-{number} 2>&1"
            f" && mv {shlex.quote(engine)}.partial {shlex.quote(engine)}; }} || "
            + _failing(f"{file.path.name}: TensorRT cannot build it: ", f"build-{number}")
        )
    parts = tier.trials * tier.windows
    for trial in range(parts):
        order = range(len(files)) if trial % 2 == 0 else reversed(range(len(files)))
        for number in order:
            engine, dynamic = engines[number]
            words = [trtexec, f"--loadEngine={engine}", *RUN, *dynamic]
            words += [
                f"--iterations={math.ceil(tier.runs / parts)}",
                f"--duration={math.ceil(tier.seconds / parts)}",
                f"--exportTimes={TIMES}-{trial}-{number}.json",
            ]
            name = files[number][0].path.name
            steps.append(
                f"run {shlex.join(words)} > {TIMES}-{trial}-{number}.log 2>&1 || "
                + _failing(f"{name}: TensorRT cannot run it: ", f"{TIMES}-{trial}-{number}.log")
            )
    lock = shlex.quote(f"{folder}/lock")
    return _SCRIPT.format(steps="\n".join(steps), lock=lock, runner=shlex.quote(runner), longest=LONGEST)


def _failing(what: str, log: str) -> str:
    return f'fail {shlex.quote(what)}"$(said {log})"'


def records(files: Mapping[str, bytes], parts: int, models: int) -> tuple[dict[str, Any], ...]:
    """Trial records, as the runner's, of the files that trtexec left; what it does not tell is left out.

    Raises:
        DeviceError: one is missing, cannot be read, or did not end well.
    """
    found = []
    for trial in range(parts):
        for model in range(models):
            name = f"{TIMES}-{trial}-{model}"
            if b"&&&& PASSED" not in files.get(f"{name}.log", b""):
                raise DeviceError(f"trtexec did not end well in trial {trial}")
            try:
                rows = json.loads(files[f"{name}.json"])
                wall = [round(float(row["latencyMs"]) * 1e6) for row in rows]
            except (KeyError, ValueError, TypeError) as error:
                raise DeviceError(f"what trtexec exported in trial {trial} cannot be read") from error
            if not wall or min(wall) <= 0:
                raise DeviceError(f"trtexec measured nothing in trial {trial}")
            found.append(
                {"type": "trial", "trial": trial, "model": model, "window": 0, "runs": len(wall), "stride": 1}
                | {"min_ns": min(wall), "wall_ns": wall}
            )
    return tuple(found)


def version_in(files: Mapping[str, bytes]) -> str | None:
    """TensorRT's version as trtexec tells it: `8502` is 8.5.2, `100300` is 10.3.0."""
    for name, text in sorted(files.items()):
        if found := _VERSION.search(text.decode(errors="replace")) if name.endswith(".log") else None:
            number = int(found[1])
            wide = 10_000 if number >= 100_000 else 1000
            return f"{number // wide}.{number % wide // 100}.{number % 100}"
    return None


def dynamic_inputs(path: Path) -> dict[str, tuple[int, ...]]:
    """Inputs of an ONNX file that have dynamic dimensions, these at 1: one sample, as everywhere else.

    Raises:
        DeviceError: it is no ONNX file.
    """
    import onnx

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf has errors of its own
        raise DeviceError(f"{path.name} is no ONNX file") from error
    constant = {entry.name for entry in graph.initializer}
    found = {}
    for entry in graph.input:
        sizes = entry.type.tensor_type.shape.dim
        if entry.name not in constant and any(not size.HasField("dim_value") for size in sizes):
            found[entry.name] = tuple(size.dim_value if size.HasField("dim_value") else 1 for size in sizes)
    return found
