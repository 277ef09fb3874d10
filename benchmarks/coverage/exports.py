"""One network in a process of its own: exported to every format whole and halved, beside the bare exporters.

    python -m benchmarks.coverage.exports NAME RESULT.json [--no-bare]

Every export is timed (wall clock and processor time) after each exporter has converted a tiny network, so
that imports do not count. Ours starts from the captured program and includes everything that `compress` does:
lowering, names, a file that is whole or absent. The bare exporter starts from the eager module, as its
documentation shows. The result file is replaced before each export, so that what a crash leaves is kept.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from benchmarks.coverage import bare, zoo
from benchmarks.coverage.oracle import half
from toolchain import registry
from toolchain.contracts import Format
from toolchain.errors import CompressError
from toolchain.foreign import translated
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.lower import lower
from toolchain.program.rewrite import apply
from toolchain.values import Artifact, Check, Program
from toolchain.verify.coreml import check_coreml
from toolchain.verify.parity import check_float

FORMATS: Final = ("onnx", "tflite", "coreml")
BATCH: Final = 2
"""Samples of the capture and of the parity run."""
Found = dict[str, Any]


def measure(
    name: str,
    module: nn.Module,
    shape: tuple[int, ...],
    keep: Callable[[Found], None],
    *,
    compared: bool = True,
) -> Found:
    """Every export of a network: `formats[format][bare | original | half]`; `keep` is called before each.

    The half-pruned network has a random half of every group. Which of bare and ours comes first depends on
    the name of the network and the format; without `compared` there is no bare one.
    """
    example = torch.randn(BATCH, *shape)
    program, seconds, _ = timed(lambda: capture(module, (example,), name=name))
    found: Found = {"status": "unfinished", "capture_s": seconds, "formats": {f: {} for f in FORMATS}}
    channels = analyse(program)
    programs = {"original": program, "half": apply(program, channels, half(channels))}
    for number, format_name in enumerate(FORMATS):
        form = registry.find("toolchain.export", "FORMAT", format_name)
        entries = found["formats"][format_name]
        order = ["bare", "original", "half"]
        if (zlib.crc32(name.encode()) + number) % 2:
            order = ["original", "bare", "half"]
        if not compared:
            order.remove("bare")
        for kind in order:
            found["step"] = f"{format_name}, {kind}"
            keep(found)
            if kind == "bare":
                entries[kind] = bare_export(format_name, module, example)
            else:
                entries[kind] = our_export(form, programs[kind])
            found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["status"] = "finished"
    del found["step"]
    return found


def our_export(form: Format, program: Program) -> Found:
    """Time, size and parity of a file of ours, or the cause of its failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{form.suffix}"
        try:
            artifact, wall, processor = timed(lambda: form.write(lower(program), path, {}))
        except CompressError as error:
            return {"status": "failed", "reason": without_folders(str(error))}
        found = {"status": "written", "wall_s": wall, "cpu_s": processor, "bytes": artifact.size_bytes}
        try:
            return {**found, "checks": [_plain(c) for c in checked(form, artifact, program)]}
        except CompressError as error:
            return {**found, "checks": [{"name": "opened", "status": "fail", "detail": str(error)}]}


def checked(form: Format, artifact: Artifact, program: Program) -> tuple[Check, ...]:
    """The file run beside the program on seeded inputs; of a Core ML package, names and weights compared."""
    if form.name == "coreml":
        return check_coreml(artifact, program, subject=form.name)
    inputs = tuple(x.numpy() for x in example_inputs(program, BATCH, seed=1))
    return (check_float(program, form.open(artifact.path), inputs, subject=form.name),) if form.open else ()


def bare_export(format_name: str, module: nn.Module, example: torch.Tensor) -> Found:
    """Time and size of the file of the exporter alone, or the cause of its failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        try:
            with translated("the bare exporter"):
                _, wall, processor = timed(lambda: bare.EXPORTERS[format_name](module, example, path))
        except (CompressError, OSError) as error:
            return {"status": "failed", "reason": without_folders(str(error))}
        files = [f for f in Path(folder).rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files)
        return {"status": "written", "wall_s": wall, "cpu_s": processor, "bytes": size}


def without_folders(text: str) -> str:
    """A message without the folders of this machine."""
    return re.sub(r"(?:/[^\s/:]+)+/", "", text)


def warm_up() -> None:
    """Each exporter converts a tiny network once."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    example = torch.randn(BATCH, 3, 8, 8)
    program = capture(module, (example,), name="tiny")
    for format_name in FORMATS:
        bare_export(format_name, module, example)
        our_export(registry.find("toolchain.export", "FORMAT", format_name), program)


def timed(step: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, seconds of wall clock, seconds of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    result = step()
    return result, time.perf_counter() - wall, time.process_time() - processor


def _plain(check: Check) -> Found:
    return {"name": check.name, "status": check.status, "value": check.value, "detail": check.detail}


def main() -> int:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    name, out = sys.argv[1], Path(sys.argv[2])

    def keep(found: Mapping[str, Any]) -> None:
        partial = out.with_name(f".{out.name}.{os.getpid()}")
        partial.write_text(json.dumps(found))
        partial.replace(out)

    module, shape = zoo.build(name)
    warm_up()
    keep(measure(name, module, shape, keep, compared="--no-bare" not in sys.argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
