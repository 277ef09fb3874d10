"""What the converters start from: sample inputs that fit a program, and its exported graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from toolchain.values import Program, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram


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
