"""`edgefit embed`: a model file as C source or an assembler file, and a header that says what is in it.

A model is embedded as data, for a runtime that reads it, or as a network: C that computes it without one.

The same file and flags give the same bytes, wherever and whenever: no date, no path.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from toolchain.artifacts import content_hash, place
from toolchain.errors import ConversionError, InputError, UnsupportedError
from toolchain.export._interface import BYTES, Interface, Port, read_interface
from toolchain.export._network_c import network_source
from toolchain.plain import to_plain

Form = Literal["auto", "cc", "asm", "network"]
ARRAY_BYTES: Final = 1 << 20
"""Up to here `auto` writes an array: compilers take about a second for a megabyte of it."""
ALIGN: Final = 16
"""TFLite's flatbuffers want 16 bytes; so do vector loads."""
PORT_RANK: Final = 8
"""Dimensions that the table of a network's inputs and outputs has room for."""
_LINE: Final = 20


def embed(
    model: Path,
    out: Path,
    *,
    name: str | None = None,
    form: Form = "auto",
    align: int = ALIGN,
    micro: bool = False,
    budget_ram: int | None = None,
) -> Mapping[str, Any]:
    """Write NAME.h with NAME.cc, with NAME.S and NAME.bin, or with NAME.c; the record of what was written.

    Args:
        model: a .tflite or .onnx file.
        out: folder, made where it is missing.
        name: prefix of files and symbols (the model's name with _ for what C does not allow).
        form: `cc` an array, `asm` a file that the assembler includes as it is: no compiler reads its bytes;
            `network` C that computes an .onnx file.
        align: of the first byte of the data, a power of two.
        micro: run a .tflite file in TFLite Micro; the header then says how large an arena it needs.
        budget_ram: bytes that the arena may have (tries it too). Where it needs more, `held` is False and
            nothing is written.

    Raises:
        InputError: no such file, a name or alignment that C does not know, a disk that refuses, or a package
            that is missing.
        UnsupportedError: TFLite Micro does not run the file.
        ConversionError: the file is not what its name says, or C cannot be made of it.
    """
    symbol = _checked(model, name, form, align)
    interface, size, digest = read_interface(model), model.stat().st_size, content_hash(model)
    record: dict[str, Any] = {"schema": "edgefit.embed/1", "model": model.name, "sha256": digest}
    fit = _tried(model) if micro or budget_ram is not None else None
    if fit is not None:
        held = None if budget_ram is None else fit["arena_bytes"] <= budget_ram
        record["micro"] = {**fit, "budget_bytes": budget_ram, "held": held}
        if held is False:
            return {**record, "size_bytes": size, "out": str(out), "files": []}
    chosen = form if form != "auto" else ("cc" if size <= ARRAY_BYTES else "asm")
    source = ""
    if chosen == "network":
        source, interface = _network(symbol, interface, model)
    ending = _run_declared(symbol) if chosen == "network" else _data_declared(symbol, align)
    arena = [] if fit is None else [f"\n#define {symbol.upper()}_ARENA {fit['arena_bytes']}u"]
    header = "\n".join((*_header(symbol, size, digest, interface), *arena, *ending)) + "\n"
    _make(out)
    written = _write_body(chosen, model, out, symbol, align, source)
    # The header last: a build that depends on it finds the data there.
    place(out / f"{symbol}.h", lambda path: path.write_text(header, encoding="ascii"))
    return {
        **record,
        "size_bytes": size,
        "symbol": f"{symbol}_run" if chosen == "network" else f"{symbol}_data",
        "form": chosen,
        "align": align,
        "interface": to_plain(interface),
        "out": str(out),
        "files": [f"{symbol}.h", *written],
    }


def _checked(model: Path, name: str | None, form: Form, align: int) -> str:
    """The prefix of all symbols, where what was asked for makes sense."""
    if not model.is_file():
        raise InputError(f"no model at {model}", hint="embed takes a .tflite or .onnx file")
    symbol = name or re.sub(r"\W", "_", model.stem, flags=re.ASCII)
    if not re.fullmatch(r"[A-Za-z_]\w*", symbol, flags=re.ASCII):
        raise InputError(f"'{symbol}' is no C name", hint="choose one with --name")
    if align < 1 or align & (align - 1):
        raise InputError(f"--align {align} is no power of two")
    if form == "network" and model.suffix != ".onnx":
        raise InputError(f"{model.name} cannot be turned into C", hint="--form network takes .onnx files")
    return symbol


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}") from error


def _write_body(form: Form, model: Path, out: Path, symbol: str, align: int, network: str) -> tuple[str, ...]:
    """Write what the header declares; the names of the files."""
    if form == "network":
        place(out / f"{symbol}.c", lambda path: path.write_text(network, encoding="utf-8"))
        return (f"{symbol}.c",)
    if form == "cc":
        place(out / f"{symbol}.cc", lambda path: _write_array(model, path, symbol, align))
        return (f"{symbol}.cc",)
    place(out / f"{symbol}.bin", lambda path: shutil.copyfile(model, path))
    assembler = _ASSEMBLER.format(symbol=symbol, align=align)
    place(out / f"{symbol}.S", lambda path: path.write_text(assembler, encoding="ascii"))
    return f"{symbol}.S", f"{symbol}.bin"


def _tried(model: Path) -> dict[str, Any]:
    """What TFLite Micro needs to run the file, as the record has it."""
    from toolchain.verify.micro import try_micro

    if model.suffix != ".tflite":
        raise InputError(
            f"TFLite Micro does not read {model.name}", hint="--micro and --budget-ram take .tflite"
        )
    fit = try_micro(model)
    if fit.arena_bytes is None:
        raise UnsupportedError(f"TFLite Micro does not run {model.name}: {fit.refused}")
    return {"version": fit.version, "arena_bytes": fit.arena_bytes, "difference": fit.difference}


# %progbits and not @progbits: in ARM assembler @ begins a comment.
_ASSEMBLER: Final = """\
/* Made by edgefit embed. Assemble in this folder, or with -I of it: {symbol}.bin is the model. */
    .section .rodata.{symbol}, "a", %progbits
    .balign {align}
    .global {symbol}_data
    .type {symbol}_data, %object
{symbol}_data:
    .incbin "{symbol}.bin"
    .size {symbol}_data, . - {symbol}_data
    .section .note.GNU-stack, "", %progbits
"""


def _write_array(model: Path, path: Path, symbol: str, align: int) -> None:
    with model.open("rb") as source, path.open("w", encoding="ascii") as file:
        file.write(f'/* Made by edgefit embed: C++, and C too. */\n#include "{symbol}.h"\n')
        file.write("#ifndef __cplusplus\n#include <stdalign.h>\n#endif\n\n")
        file.write(f"alignas({align}) const unsigned char {symbol}_data[{symbol.upper()}_SIZE] = {{\n")
        while block := source.read(_LINE):
            file.write(",".join(map(str, block)) + ",\n")
        file.write("};\n")


_OPENED: Final = '\n#ifdef __cplusplus\nextern "C" {\n#endif'
_CLOSED: Final = "#ifdef __cplusplus\n}\n#endif\n\n#endif"
_PORT_TYPE: Final = f"""\
#ifndef EDGEFIT_PORT
#define EDGEFIT_PORT
struct edgefit_port {{
  const char *name, *type;
  int rank;
  long shape[{PORT_RANK}];
  unsigned long bytes;
}};
#endif
"""


def _header(symbol: str, size: int, digest: str, interface: Interface) -> Iterator[str]:
    upper = symbol.upper()
    yield "/* Made by edgefit embed: a model, and what goes in and out of it. */"
    yield f"#ifndef {upper}_H\n#define {upper}_H\n"
    yield f"#define {upper}_SIZE {size}u"
    yield f'#define {upper}_SHA256 "{digest}"'
    for kind, ports in (("INPUT", interface.inputs), ("OUTPUT", interface.outputs)):
        yield f"\n#define {upper}_{kind}S {len(ports)}"
        for number, port in enumerate(ports):
            yield from _port(f"{upper}_{kind}_{number}", port)


def _data_declared(symbol: str, align: int) -> Iterator[str]:
    upper = symbol.upper()
    yield f"\n#define {upper}_ALIGN {align}"
    yield _OPENED
    yield f"extern const unsigned char {symbol}_data[{upper}_SIZE];"
    yield _CLOSED


def _run_declared(symbol: str) -> Iterator[str]:
    upper = symbol.upper()
    yield _OPENED
    yield _PORT_TYPE
    yield f"extern const struct edgefit_port {symbol}_input[{upper}_INPUTS];"
    yield f"extern const struct edgefit_port {symbol}_output[{upper}_OUTPUTS];"
    yield "\n/* One inference: the memory of every input and output, in the order above. */"
    yield f"void {symbol}_run(const void *const *input, void *const *output);"
    yield _CLOSED


def _network(symbol: str, declared: Interface, model: Path) -> tuple[str, Interface]:
    """The C source: what computes the network, tables of its ports, and one function that takes them all.

    The interface comes back with the shapes of the source: a file may leave them open.
    """
    entry = f"{symbol}_network"
    source, shapes = network_source(model, entry)
    ports = (*declared.inputs, *declared.outputs)
    if len(shapes) != len(ports) or any(len(shape) > PORT_RANK for shape in shapes):
        raise ConversionError(f"{model.name}: {len(ports)} inputs and outputs, {len(shapes)} in C: {shapes}")
    ports = tuple(replace(port, shape=shape) for port, shape in zip(ports, shapes, strict=True))
    inputs = len(declared.inputs)
    found = Interface(inputs=ports[:inputs], outputs=ports[inputs:])
    parts = [source, f'\n#include "{symbol}.h"\n']
    for kind, group in (("input", found.inputs), ("output", found.outputs)):
        parts.append(f"\nconst struct edgefit_port {symbol}_{kind}[] = {{\n")
        for port in group:
            shape, size = ", ".join(map(str, port.shape)), _elements(port) * BYTES.get(port.dtype, 0)
            parts.append(
                f'  {{"{_c_text(port.name)}", "{port.dtype}", {len(port.shape)}, {{{shape}}}, {size}}},\n'
            )
        parts.append("};\n")
    handed = [f"input[{i}]" for i in range(inputs)] + [f"output[{i}]" for i in range(len(ports) - inputs)]
    parts.append(f"\nvoid {symbol}_run(const void *const *input, void *const *output) {{\n")
    parts.append(f"  {entry}({', '.join(handed)});\n}}\n")
    return "".join(parts), found


def _port(prefix: str, port: Port) -> Iterator[str]:
    elements = _elements(port)
    yield f'#define {prefix}_NAME "{_c_text(port.name)}"'
    yield f'#define {prefix}_TYPE "{port.dtype}"'
    yield f"#define {prefix}_RANK {len(port.shape)}"
    yield f"#define {prefix}_SHAPE {{{', '.join(map(str, port.shape)) or '1'}}}"
    yield f"#define {prefix}_ELEMENTS {elements}u"
    yield f"#define {prefix}_BYTES {elements * BYTES.get(port.dtype, 0)}u"
    if port.scale is not None:
        # Nine digits give every float back as it was.
        yield f"#define {prefix}_SCALE {port.scale:.9g}{'' if _has_point(port.scale) else '.0'}f"
        yield f"#define {prefix}_ZERO_POINT {port.zero_point}"


def _elements(port: Port) -> int:
    return math.prod(port.shape)


def _has_point(value: float) -> bool:
    text = f"{value:.9g}"
    return "." in text or "e" in text


def _c_text(text: str) -> str:
    """The text inside a C string literal; what is not ASCII as octal escapes."""
    plain = {ord('"'): '\\"', ord("\\"): "\\\\"}
    return "".join(
        plain.get(b, chr(b)) if 32 <= b < 127 and b != ord("?") else f"\\{b:03o}" for b in text.encode()
    )


def embed_text(found: Mapping[str, Any]) -> str:
    """What was written, and what TFLite Micro needs where it was asked."""
    lines = []
    if found["files"]:
        files = ", ".join(found["files"])
        lines.append(f"EMBEDDED  {found['model']} ({found['size_bytes']:,} bytes) in {found['out']}: {files}")
    if "micro" in found:
        fit = found["micro"]
        budget = "" if fit["held"] is None else f", {'over' if not fit['held'] else 'within'} the budget"
        limit = "" if fit["held"] is None else f" of {fit['budget_bytes']:,}"
        lines.append(
            f"MICRO     arena {fit['arena_bytes']:,} bytes{budget}{limit}; largest difference from LiteRT "
            f"{fit['difference']:.1e} of the largest output (TFLite Micro {fit['version']})"
        )
    return "\n".join(lines) + "\n"
