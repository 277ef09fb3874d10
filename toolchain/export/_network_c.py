"""An ONNX file as plain C that computes it: no library, no operating system, weights in the source.

The work is done by emx-onnx-cgen (Apache-2.0), in a process of its own: loops in the order of the definition,
one thread, no vector kernels. Small networks where no runtime exists; a runtime is many times faster.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from toolchain.errors import ConversionError
from toolchain.foreign import require, translated

PACKAGE: Final = "emx_onnx_cgen"
_HEAP_FROM: Final = 1024
"""Intermediate results of this many bytes and more are taken from the heap: stacks of firmware are small."""


def network_source(model: Path, entry: str) -> tuple[str, tuple[tuple[int, ...], ...]]:
    """C99 source of the network for one sample, and the shapes of its inputs and outputs.

    It has a function `entry`: pointers to the inputs, then to the outputs, in the file's order.

    All of it is local to the file. The same file and versions give the same text. Where malloc has no more
    memory, the function returns and leaves the outputs as they were.

    Raises:
        InputError: the package is missing.
        ConversionError: an operator or shape that the generator does not know.
    """
    require((PACKAGE, "onnx"), extra="micro", purpose="turning a network into C")
    words = [sys.executable, "-m", PACKAGE, "compile", "--color", "never", "--model-name", entry]
    words += ["--large-weight-threshold", "0", "--large-temp-threshold", str(_HEAP_FROM)]
    for pinned in _pinned(model):
        words += ["--input-dim", pinned]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "network.c"
        done = subprocess.run([*words, str(model), str(out)], capture_output=True, text=True, check=False)
        if done.returncode != 0 or not out.is_file():
            said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise ConversionError(
                f"{model.name} cannot be turned into C: {said[-1][:300] if said else 'no reason given'}",
                hint="edgefit embed without --form network writes the file as data, for a runtime",
            )
        text = out.read_text(encoding="utf-8")
    # Two networks in one program: no name may be known outside of its file.
    text = re.sub(r"^extern const .*;\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^const EMX_UNUSED ", "static const EMX_UNUSED ", text, flags=re.MULTILINE)
    shapes = _shapes(text, entry, model)
    static = rf"^(_Bool {entry}_load|void {entry})\("
    return re.sub(static, r"static EMX_UNUSED \1(", text, flags=re.MULTILINE), shapes


def _shapes(text: str, entry: str, model: Path) -> tuple[tuple[int, ...], ...]:
    """The shape of every parameter of `entry`: what the code reads and writes, whatever the file declares."""
    found = re.search(rf"^void {entry}\((.*)\) {{$", text, flags=re.MULTILINE)
    parameters = found[1].split(", ") if found else []
    shapes = [re.fullmatch(r"[\w ]+((?:\[(?:restrict )?\d+\])+)", parameter) for parameter in parameters]
    if not shapes or not all(shapes):
        raise ConversionError(f"{model.name} cannot be turned into C: its shapes are open: {parameters}")
    return tuple(tuple(map(int, re.findall(r"\d+", shape[1]))) for shape in shapes if shape)


def _pinned(model: Path) -> list[str]:
    """What makes every open dimension of an input 1, as the generator's flags say it."""
    import onnx

    with translated(f"reading {model.name}"):
        graph: Any = onnx.load(str(model), load_external_data=False).graph
    weights = {entry.name for entry in graph.initializer}
    found = []
    for value in graph.input:
        if value.name in weights:
            continue
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.dim_value:
                named = re.fullmatch(r"[A-Za-z_]\w*", size.dim_param, flags=re.ASCII)
                found.append(f"{size.dim_param}=1" if named else f"{value.name}:{axis}=1")
    return list(dict.fromkeys(found))
