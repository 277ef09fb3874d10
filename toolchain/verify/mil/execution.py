"""Runs an ML Program operation by operation, in the precision that the file declares.

Every result is rounded to its declared type; within an operator floats are float32. So fp16 files show what
the file itself prescribes: the rounding of weights and of every activation, and overflow beyond 65504. How a
processor adds up inside one operator, and which operators it fuses, is Apple's choice and not in the file.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from toolchain.foreign import first_line
from toolchain.values import TensorSpec
from toolchain.verify.mil import decoding, elementwise, layers, movement, resizing
from toolchain.verify.mil.reading import MlProgram, Name, Operation, read
from toolchain.verify.mil.refusal import Ambiguous, Refused

if TYPE_CHECKING:
    from toolchain.contracts import Arrays

COMPUTED: Final[Mapping[str, Callable[..., Any]]] = {
    **elementwise.OPERATORS,
    **layers.OPERATORS,
    **resizing.OPERATORS,
}
MOVED: Final[Mapping[str, Callable[..., Any]]] = movement.OPERATORS
_WEIGHTED: Final = ("conv", "conv_transpose", "linear")


def interpreter(path: Path) -> Interpreter:
    """The package opened for interpretation.

    Raises:
        ConversionError: it cannot be read.
        Refused: it is no ML Program, or has types that are not interpreted here.
    """
    program = read(path)
    return Interpreter(
        program=program, inputs=tuple(name for name, _ in program.inputs), outputs=program.outputs
    )


@dataclass(kw_only=True)
class Interpreter:
    """A `Session` on a package. Batches run in parts of the size that the file is made for."""

    program: MlProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Shape of every input; parts run one by one, so the batch is free."""
        return tuple(TensorSpec(name=name, shape=(None, *t.shape[1:])) for name, t in self.program.inputs)

    def run(self, arrays: Arrays) -> Arrays:
        """Outputs for inputs [n, ...], floats in the declared type of each output.

        Raises:
            Refused: an operator is unknown here, or has more than one reading; by name.
        """
        for operation in self.program.operations:
            if operation.kind != "const" and _function(operation) is None:
                raise Refused(f"operator '{operation.kind}' ('{operation.name}') is unknown here")
        size = self.program.inputs[0][1].shape[0]
        count = len(arrays[0])
        if count % size:
            raise Refused(f"{count} samples do not fill batches of {size}")
        parts = [
            self._once([torch.from_numpy(a[start : start + size]) for a in arrays])
            for start in range(0, count, size)
        ]
        return tuple(torch.cat(found).numpy() for found in zip(*parts, strict=True))

    @cached_property
    def constants(self) -> dict[str, Any]:
        """Constants by name, compressed ones expanded; plain ones stay mapped from the file."""
        found: dict[str, Any] = {}
        for operation in self.program.operations:
            if operation.kind == "const":
                found[operation.outputs[0][0]] = operation.constant
            elif operation.kind in decoding.DECODERS:
                found.update(compute(operation, found))
        return found

    def weights(self) -> tuple[Tensor, ...]:
        """The weights of convolutions and linear layers as they are used, in the order of the layers."""
        handed = [op.inputs["weight"] for op in self.program.operations if op.kind in _WEIGHTED]
        found = [self.constants.get(w.name) if isinstance(w, Name) else w for w in handed]
        return tuple(weight for weight in found if weight is not None)

    @cached_property
    def _steps(self) -> list[tuple[Operation, tuple[str, ...]]]:
        """What is left to compute, each with the values that nothing after it reads."""
        left = [op for op in self.program.operations if op.outputs[0][0] not in self.constants]
        alive, steps = set(self.program.outputs), []
        for operation in reversed(left):
            used = {n for value in operation.inputs.values() for n in _names(value)} - self.constants.keys()
            made = {name for name, _ in operation.outputs}
            steps.append((operation, tuple((used | made) - alive)))
            alive |= used
        return steps[::-1]

    @torch.no_grad()
    def _once(self, tensors: list[Tensor]) -> list[Tensor]:
        values: dict[str, Any] = {}
        for (name, declared), tensor in zip(self.program.inputs, tensors, strict=True):
            if tuple(tensor.shape) != declared.shape:
                raise Refused(f"input '{name}' is {declared.shape} in the file, not {tuple(tensor.shape)}")
            values[name] = tensor.to(declared.dtype)
        for operation, finished in self._steps:
            values.update(compute(operation, ChainMap(values, self.constants)))
            for name in finished:
                del values[name]
        known = ChainMap(values, self.constants)
        return [known[name] for name in self.program.outputs]


def _function(operation: Operation) -> Callable[..., Any] | None:
    for table in (COMPUTED, MOVED, decoding.DECODERS):
        if operation.kind in table:
            return table[operation.kind]
    return None


def _names(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for part in value for name in _names(part)]
    return [value.name] if isinstance(value, Name) else []


def compute(operation: Operation, values: Mapping[str, Any]) -> dict[str, Tensor]:
    """The operation's results by name, of the types and shapes that the file declares.

    Raises:
        Refused: an option that is not interpreted, or a result of another shape than declared.
    """
    subject = f"operator '{operation.kind}' ('{operation.name}')"
    function = _function(operation)
    assert function is not None, "known since the package was opened"
    widened = operation.kind in COMPUTED
    try:
        handed = {key: _looked_up(value, values, widened) for key, value in operation.inputs.items()}
        found = function(**handed)
    except Ambiguous as error:
        raise Refused(f"{subject}: {error} has more than one reading") from error
    except (RuntimeError, TypeError, KeyError, IndexError, ValueError) as error:
        # What torch raises on shapes or types that an operator does not take; a value that nothing makes.
        raise Refused(f"{subject} is not interpreted as it stands: {first_line(error)}") from error
    results = found if isinstance(found, tuple) else (found,)
    made = {}
    for (name, declared), result in zip(operation.outputs, results, strict=True):
        assert declared is not None, "constants are not computed"
        if tuple(result.shape) != declared.shape:
            raise Refused(f"{subject} gives {tuple(result.shape)} where the file declares {declared.shape}")
        made[name] = result.to(declared.dtype)
    return made


def _looked_up(value: Any, values: Mapping[str, Any], widened: bool) -> Any:
    if isinstance(value, list):
        return [_looked_up(part, values, widened) for part in value]
    found = values[value.name] if isinstance(value, Name) else value
    if widened and isinstance(found, Tensor) and found.dtype == torch.float16:
        return found.float()
    return found
