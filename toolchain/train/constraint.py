"""What weights have to be while a network is fine-tuned: zero in places, shared, on a grid, of two values.

A constraint changes the weights of a module in place, at set moments of a training step. What it needs to
know beyond its settings it reads off the weights themselves, so that a resumed training goes on as an
uninterrupted one. A form of storage (`forms/`, one file each) is where the constraint of stored weights comes
from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.contracts import Schedule
from toolchain.program.slices import parameter
from toolchain.train.gradual import due
from toolchain.values import Program


class Constraint:
    """A constraint on the weights called `names`. `identity` tells it from others in checkpoints.

    What a subclass does not say changes nothing.
    """

    def __init__(self, names: Sequence[str], identity: str) -> None:
        self.names, self.identity = tuple(names), identity

    schedule: Schedule | None = None
    """By what share it holds at which time of the training; None: wholly, all the time."""

    def start(self, module: nn.Module) -> None:
        """Before training: the weights to begin with."""

    def due(self, module: nn.Module, step: int, steps: int) -> None:
        """Before step `step` of `steps`, and after the last: what a schedule wants by then."""

    def forward(self, module: nn.Module) -> None:
        """Before the network computes: the weights it is to compute with."""

    def backward(self, module: nn.Module) -> None:
        """After gradients are there: which of them count, and the weights to be changed by them."""

    def settle(self, module: nn.Module) -> None:
        """After the optimizer's step."""

    def rest(self, module: nn.Module) -> None:
        """For judging: weights as they would be delivered now."""

    def finish(self, module: nn.Module) -> None:
        """After training: weights as they are delivered."""
        self.rest(module)

    def complete(self, module: nn.Module) -> bool:
        """Whether the constraint holds wholly."""
        return True

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """The constrained weights by name, without gradient; changing them changes the module's."""
        return {name: module.get_parameter(name).detach() for name in self.names}


class Free(Constraint):
    """No constraint."""

    def __init__(self) -> None:
        super().__init__((), "")


class Sparse(Constraint):
    """The least weights are zero and stay zero, `share` of all in the end, by and by with a schedule.

    What is least: LAMP, w^2 over the sum of the squares of all weights of the layer that are no smaller. It
    leaves the more of a layer the fewer weights it has, and some of every layer.
    Source: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021; schedules and
    fine-tuning of the rest as Zhu & Gupta, "To prune, or not to prune", 2017.
    """

    def __init__(self, names: Sequence[str], share: float, schedule: Schedule) -> None:
        super().__init__(names, f"sparse {share} {schedule.name}")
        self.share, self.schedule = share, schedule

    def due(self, module: nn.Module, step: int, steps: int) -> None:
        """Zero what the schedule wants zero by now."""
        assert self.schedule is not None
        made = due(self.schedule, step, steps)
        if made is not None:
            self._prune(module, made * self.share)

    def backward(self, module: nn.Module) -> None:
        """A weight that is zero gets no gradient."""
        for name in self.names:
            weight = module.get_parameter(name)
            if weight.grad is not None:
                weight.grad[weight.detach() == 0] = 0
        self._zeros = {name: weight == 0 for name, weight in self.weights(module).items()}

    def settle(self, module: nn.Module) -> None:
        """Momentum moves no weight away from zero."""
        for name, weight in self.weights(module).items():
            weight[self._zeros[name]] = 0

    def finish(self, module: nn.Module) -> None:
        """Whatever is still missing goes at once."""
        self._prune(module, self.share)

    def complete(self, module: nn.Module) -> bool:
        """Whether so many weights are zero."""
        found = self.weights(module).values()
        return sum(int((w == 0).sum()) for w in found) >= self._count(self.share, module)

    def _count(self, share: float, module: nn.Module) -> int:
        return int(share * sum(w.numel() for w in self.weights(module).values()))

    def _prune(self, module: nn.Module, share: float) -> None:
        """Zero the `share` of all weights with the lowest scores; those that are zero have the lowest."""
        weights, count = self.weights(module), self._count(share, module)
        if count == 0:
            return
        scores = torch.cat([lamp(weight).reshape(-1) for weight in weights.values()])
        gone = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        gone[scores.argsort(stable=True)[:count]] = True
        parts = torch.split(gone, [weight.numel() for weight in weights.values()])
        for weight, part in zip(weights.values(), parts, strict=True):
            weight[part.reshape(weight.shape)] = 0


def lamp(weight: Tensor) -> Tensor:
    """The score of every weight [*weight]: w^2 / sum of the squares of this layer's weights not below it."""
    squares = weight.double().square().reshape(-1)
    order = squares.argsort(stable=True)
    rising = squares[order]
    above = rising.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = rising / above.clamp_min(torch.finfo(torch.float64).tiny)
    return scores.reshape(weight.shape)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a form is made for: its own setting, output channels that share a palette, how it rounds.

    `inner` are the weights that it is for, `edges` those of the first and the last layer; `sparse`: weights
    that are zero have to stay zero.
    """

    setting: Any
    inner: tuple[str, ...]
    edges: tuple[str, ...]
    sparse: bool
    run: int | None = None
    rounding: str = "nearest"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form in which weights are stored.

    `read` turns what follows its name (`5` of `palette:5`, "" for nothing) into its setting; ValueError says
    what it takes. `begin` gives the constraint for training; None: weights stay as they are. `normed`: it is
    trained with batch norms in place, which are merged into the weights afterwards; else they are merged
    first. `table` is how many output channels share a table, 1 for a scale each, None for all of them.
    """

    name: str
    summary: str
    takes: str
    read: Callable[[str], Any]
    begin: Callable[[Program, Shape], Constraint] | None
    normed: bool = False
    table: int | None = None


def nothing_behind(name: str) -> Callable[[str], None]:
    """The `read` of a form that has no setting."""

    def read(text: str) -> None:
        if text:
            raise ValueError(f"{name} takes nothing behind its name")

    return read


def tensors_of(program: Program, names: Sequence[str]) -> Mapping[str, Tensor]:
    """The program's weights by name, shared, not copied."""
    return {name: parameter(program, name).detach() for name in names}
