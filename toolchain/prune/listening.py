"""What layers read and put out on real samples, and which unit each of their channels belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from toolchain.errors import InputError
from toolchain.program.axes import Axes, Call, call_of
from toolchain.program.channels import Analysis, examine
from toolchain.values import Program

if TYPE_CHECKING:
    from toolchain.contracts import Batch, Evidence

_PART: Final = 8
"""Samples in one pass: bounds the memory of what is looked at."""
_LAYERS: Final = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "linear")


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One layer on one part of the samples: input [n, c, ...] or [..., c], the same for the output."""

    call: Call
    input: Tensor
    output: Tensor
    weight: Tensor
    bias: Tensor | None

    @property
    def channel(self) -> int:
        """The channel dimension of input and output."""
        return self.input.dim() - 1 if self.call.op == "linear" else self.input.dim() - self.weight.dim() + 1


class Listener:
    """Runs a program over samples and shows every convolution and linear layer on the way."""

    def __init__(self, program: Program) -> None:
        self.analysis: Analysis = examine(program)
        self._program = program
        self._names = [g.name for g in self.analysis.channels.groups]
        self._sizes = {g.name: g.size for g in self.analysis.channels.groups}

    def listen(self, batches: Iterable[Batch], hear: Callable[[Sight], None]) -> int:
        """Call `hear` for every layer and part of the samples, in eval mode; the number of parts."""
        parts = 0
        with torch.no_grad():
            for inputs, target in batches:
                for start in range(0, len(target), _PART):
                    _Run(self._program.module, hear).run(*(x[start : start + _PART] for x in inputs))
                    parts += 1
        return parts

    def zeros(self) -> dict[str, Tensor]:
        """A zero for every unit of every group."""
        return {name: torch.zeros(size, dtype=torch.float64) for name, size in self._sizes.items()}

    def read_by(self, sight: Sight, values: Tensor) -> dict[str, Tensor]:
        """`values` of the layer's input channels [c], summed by unit."""
        return self._by_unit(sight.call["input"], sight.channel, values)

    def put_out_by(self, sight: Sight, values: Tensor) -> dict[str, Tensor]:
        """`values` of the layer's output channels [o], summed by unit."""
        return self._by_unit(sight.call.node, sight.channel, values)

    def _by_unit(self, node: Node, dim: int, values: Tensor) -> dict[str, Tensor]:
        axes = self.analysis.tracing.values[node]
        vector = axes.labels[dim] if isinstance(axes, Axes) else None
        found: dict[str, Tensor] = {}
        for column in () if vector is None else self.analysis.tracing.labels.atoms(vector):
            groups, units = self.analysis.group_of[column], self.analysis.unit_of[column]
            for number in np.unique(groups[(groups >= 0) & (groups < len(self._names))]).tolist():
                mine = np.flatnonzero(groups == number)
                name = self._names[number]
                sums = torch.zeros(self._sizes[name], dtype=torch.float64)
                found[name] = sums.index_add_(0, torch.from_numpy(units[mine]), values.double()[mine])
        return found


class _Run(Interpreter):
    def __init__(self, module: GraphModule, hear: Callable[[Sight], None]) -> None:
        super().__init__(module)
        self._hear = hear

    def run_node(self, n: Node) -> Any:
        """Run the node as ever; show it when it is a layer."""
        call = call_of(n)
        if call is None or call.op not in _LAYERS or call["transposed"]:
            return super().run_node(n)
        given = {k: self.env[v] if isinstance(v, Node) else v for k, v in call.arguments.items()}
        result = super().run_node(n)
        self._hear(
            Sight(
                call=call,
                input=given["input"],
                output=result,
                weight=given["weight"],
                bias=given.get("bias"),
            )
        )
        return result


def needed(evidence: Evidence, name: str) -> tuple[Batch, ...]:
    """The samples of a criterion that needs them.

    Raises:
        InputError: there are none.
    """
    if not evidence.batches:
        raise InputError(
            f"criterion '{name}' needs data", hint="give --data, or choose --criterion magnitude"
        )
    return evidence.batches


def preferred(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], counted: Mapping[str, int]
) -> dict[str, tuple[float, ...]]:
    """Scores of `first` for groups that were counted there, else of `second`."""
    chosen = {name: first[name] if counted.get(name) else second[name] for name in first}
    return {name: tuple(values.clamp(min=0).tolist()) for name, values in chosen.items()}
