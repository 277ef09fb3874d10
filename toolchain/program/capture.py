"""A trained network as one Program: captured, folded, switched, identified, saved and opened.

Given:  an `nn.Module` with example inputs, or a torch.export archive
Result: a flat ATen graph in eval mode, positional inputs, flat outputs, dynamic batch where possible
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from toolchain.errors import InputError, UnsupportedError
from toolchain.foreign import first_line
from toolchain.program.fold import fold
from toolchain.program.identity import fingerprint
from toolchain.program.refusal import depends_on_values, refuse_open_sizes, refused
from toolchain.program.signature import flatten_signature, input_specs, output_specs
from toolchain.program.switching import switch
from toolchain.values import Program, TensorSpec

__all__ = [
    "capture",
    "captured_again",
    "example_inputs",
    "fingerprint",
    "from_exported",
    "open_program",
    "save_program",
    "switch",
]

_EXTRA: Final = "edgefit.json"
INTEGER_LIMIT: Final = 8
"""Sample inputs of integer inputs are drawn below this: small enough to index any table."""


def capture(
    module: nn.Module, example: tuple[Tensor, ...], *, name: str, input_names: Sequence[str] = ()
) -> Program:
    """Export `module` in eval mode into a Program with a dynamic batch (dimension 0) where it can have one.

    The module is left as it was; its parameters and buffers are shared with the Program by reference.
    A batch of 1 in `example` is repeated, since torch.export would specialise on it; where the batch
    cannot be dynamic, the Program keeps the example's batch in `TensorSpec.shape[0]`.

    Raises:
        UnsupportedError: the network cannot be traced (data-dependent control flow or sizes, unsupported
            inputs).
    """
    if not example or not all(isinstance(x, Tensor) for x in example):
        raise UnsupportedError("the network needs one or more tensors as positional inputs")
    with _evaluating(module):
        try:
            exported = _export(module, _repeated(example), dynamic=True)
        except UnsupportedError as error:
            if depends_on_values(error.__cause__):
                raise
            exported = _export(module, example, dynamic=False)
    return _program(exported, name=name, input_names=input_names)


def from_exported(exported: ExportedProgram, *, name: str) -> Program:
    """A Program from a loaded torch.export archive; a batch fixed at export is made dynamic where it can be.

    Raises:
        UnsupportedError: the archive takes keyword or nested inputs.
    """
    program = _program(exported, name=name)
    if any(s.shape and s.shape[0] is None for s in program.inputs) or not any(
        s.shape for s in program.inputs
    ):
        return program
    return _with_dynamic_batch(program) or program


def captured_again(program: Program, module: GraphModule, example: tuple[Tensor, ...]) -> Program:
    """The program whose graph is now `module`, for inputs like `example`; names, classes and batch stay.

    Raises:
        UnsupportedError: the graph cannot be captured.
    """
    dynamic = any(None in spec.shape for spec in program.inputs)
    return _program(
        _export(module, example, dynamic=dynamic),
        name=program.name,
        input_names=[s.name for s in program.inputs],
        output_names=[s.name for s in program.outputs],
        classes=program.classes,
    )


def example_inputs(program: Program, batch: int, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Seeded random inputs fitting the specs: normal for floats, small integers, booleans.

    A fixed batch in the specs wins over `batch`.
    """
    generator = torch.Generator().manual_seed(seed)
    return tuple(_sample(spec, batch, generator) for spec in program.inputs)


def save_program(program: Program, path: Path) -> None:
    """Write a `.pt2` archive that torch.export.load reads too; atomic.

    Raises:
        InputError: the file cannot be written.
        UnsupportedError: the graph cannot be exported again.
    """
    inputs = example_inputs(program, 2)
    exported = _export(program.module, inputs, dynamic=any(None in s.shape for s in program.inputs))
    extra = {
        "name": program.name,
        "classes": list(program.classes),
        "inputs": [s.name for s in program.inputs],
    }
    extra["outputs"] = [s.name for s in program.outputs]
    try:
        handle, temporary = tempfile.mkstemp(suffix=".pt2", prefix=f".{path.stem}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        torch.export.save(exported, temporary, extra_files={_EXTRA: json.dumps(extra)})
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def open_program(path: Path) -> Program:
    """Read an archive written by `save_program`, or any torch.export archive.

    Raises:
        InputError: the file is missing or no torch.export archive.
    """
    extra: dict[str, Any] = {_EXTRA: ""}
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    try:
        exported = torch.export.load(path, extra_files=extra)
    except Exception as error:
        raise InputError(f"{path} is not a readable torch.export archive: {first_line(error)}") from error
    known = json.loads(extra[_EXTRA]) if extra[_EXTRA] else {}
    return _program(
        exported,
        name=known.get("name", path.stem),
        input_names=known.get("inputs", ()),
        output_names=known.get("outputs", ()),
        classes=tuple(known.get("classes", ())),
    )


def _program(
    exported: ExportedProgram,
    *,
    name: str,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    classes: tuple[str, ...] = (),
) -> Program:
    module = exported.module(check_guards=False)
    assert isinstance(module, GraphModule)
    for blocked in ("train", "eval"):  # torch.export makes these raise; the mode is in the graph (see switch)
        module.__dict__.pop(blocked, None)
    found = flatten_signature(module, exported, input_names)
    fold(module)
    refuse_open_sizes(module)
    return Program(
        name=name,
        module=module,
        inputs=input_specs(module),
        outputs=output_specs(module, output_names or found),
        classes=classes,
    )


def _export(module: nn.Module, example: tuple[Tensor, ...], *, dynamic: bool) -> ExportedProgram:
    batch = next((x.shape[0] for x in example if x.dim()), None)
    shapes = tuple({0: Dim.AUTO} if dynamic and x.dim() and x.shape[0] == batch else None for x in example)
    try:
        with torch.no_grad():
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise refused(error) from error


def _with_dynamic_batch(program: Program) -> Program | None:
    """The same program with a dynamic batch; None where its graph depends on the batch of its export."""
    fixed = next(s.shape[0] for s in program.inputs if s.shape)
    single = example_inputs(program, 1)
    doubled = tuple(torch.cat([x, x.roll(1, -1)]) if x.dim() else x for x in single)
    several = doubled if fixed == 1 else single
    try:
        exported = _export(program.module, several, dynamic=True)
    except UnsupportedError:
        return None
    candidate = _program(
        exported, name=program.name, input_names=[s.name for s in program.inputs], classes=program.classes
    )
    batched = [s.shape and s.shape[0] is None for s in (*candidate.inputs, *candidate.outputs)]
    if not all(batched) or not _agree(program, candidate, single, several):
        return None
    return candidate


def _agree(fixed: Program, dynamic: Program, single: tuple[Tensor, ...], several: tuple[Tensor, ...]) -> bool:
    """Whether the first samples of a batch come out as they do alone; a batch of 1 may have been squeezed."""
    with torch.no_grad():
        wanted, found = fixed.module(*single), dynamic.module(*several)
    batch = next(x.shape[0] for x in single if x.dim())
    pairs = [(w, f[:batch]) for w, f in zip(_flat(wanted), _flat(found), strict=True)]
    return all(
        w.numel() == f.numel() and torch.allclose(w.reshape(f.shape), f, rtol=1e-4, atol=1e-5)
        for w, f in pairs
    )


def _flat(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _repeated(example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The example with a batch of at least 2."""
    if any(x.shape[0] != 1 for x in example if x.dim()):
        return example
    return tuple(x.repeat(2, *[1] * (x.dim() - 1)) if x.dim() else x for x in example)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while; every submodule gets its own mode back."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _sample(spec: TensorSpec, batch: int, generator: torch.Generator) -> Tensor:
    shape = [batch if size is None else size for size in spec.shape]
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=dtype)
    high = 2 if dtype is torch.bool else INTEGER_LIMIT
    return torch.randint(0, high, shape, generator=generator).to(dtype)
