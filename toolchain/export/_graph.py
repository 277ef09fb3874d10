"""What the converters start from: sample inputs that fit a program, and its exported graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from toolchain.errors import ConversionError
from toolchain.values import Program, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram


FILE_LIMIT: Final = 2**31
"""Bytes that protobuf (ONNX) and flatbuffers (TFLite) can address in one file."""


def refuse_too_large(program: Program, format_name: str) -> None:
    """Say at once, not after minutes of conversion, that the weights alone are more than one file holds.

    Raises:
        ConversionError: they are.
    """
    module = program.module
    size = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    if size >= FILE_LIMIT:
        raise ConversionError(
            f"'{program.name}' has {size / 1e9:.1f} GB of weights and a {format_name} file holds less than "
            f"{FILE_LIMIT / 1e9:.1f} GB",
            hint="a tighter budget makes it fit; Core ML packages have no such limit",
        )


def sample(program: Program, batch: int) -> tuple[torch.Tensor, ...]:
    """Zeros for every input, dynamic dimensions at `batch`: converters look at shapes, never at values."""
    return tuple(_zeros(spec, batch) for spec in program.inputs)


def _zeros(spec: TensorSpec, batch: int) -> torch.Tensor:
    shape = [batch if size is None else size for size in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def exported(program: Program, batch: int, *, dynamic: bool) -> ExportedProgram:
    """The program as an ExportedProgram; a batch of 2 or more keeps the batch dynamic where asked."""
    shapes: Any = None
    if dynamic:
        auto = torch.export.Dim.AUTO
        shapes = tuple({d: auto for d, s in enumerate(i.shape) if s is None} for i in program.inputs)
        # The parameters of the graph's forward are named by capture, so shapes go by position.
    with torch.no_grad():
        return torch.export.export(program.module, sample(program, batch), dynamic_shapes=shapes)
