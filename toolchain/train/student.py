"""The network in training: the module that learns, the one that is judged, and the optimizer, cut as one."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from toolchain.program.switching import switch
from toolchain.train.checkpoint import Checkpoint
from toolchain.train.constraint import Constraint, Free
from toolchain.train.gradual import Cut, Removal
from toolchain.values import Program, Training


class Student:
    """A copy of `program` that learns on `device`.

    `module` (train mode), `judge` (eval mode) and `optimizer` change in place, and are replaced with every
    cut; `cut` is what the removal has removed by now. `constraint` is what weights have to be.
    """

    def __init__(
        self,
        program: Program,
        training: Training,
        device: torch.device,
        removal: Removal | None = None,
        cut: Cut | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        self.device, self.cut, self.constraint = device, cut or Cut(), constraint or Free()
        self._training, self._removal = training, removal
        self._average: dict[str, Tensor] = {}
        self._whole = _size(program.module if removal is None else removal.original.module)
        self._become(program)

    def _become(self, program: Program) -> None:
        self.module = channels_last(switch(program, training=True)).to(self.device)
        self.judge = channels_last(switch(program, training=False)).to(self.device)
        self.optimizer = _optimizer(self.module, self._training)

    @property
    def left(self) -> float | None:
        """The share of the original's parameters still there; None where nothing is removed in training."""
        return None if self._removal is None else _size(self.module) / self._whole

    @property
    def final(self) -> bool:
        """Whether the final widths are reached and the constraint holds wholly."""
        narrow = self._removal is None or self._removal.finished(self.cut)
        return narrow and self.constraint.complete(self.module)

    def weights(self) -> dict[str, Tensor]:
        """A copy of all parameters and buffers, on the CPU."""
        return copied(self.module)

    def rested(self) -> dict[str, Tensor]:
        """A copy of all parameters and buffers as they were judged."""
        return copied(self.judge)

    def restore(self, state: Checkpoint) -> None:
        """Go on from a checkpoint that was cut alike."""
        self.module.load_state_dict(state.weights)
        self._average = {name: tensor.to(self.device) for name, tensor in state.average.items()}
        self.optimizer.load_state_dict(state.optimizer)

    @property
    def averages(self) -> dict[str, Tensor]:
        """A copy of the moving average of parameters and statistics; empty where there is none."""
        return {name: tensor.cpu().clone() for name, tensor in self._average.items()}

    def average(self, step: int) -> None:
        """Move the average, where there is one, towards the weights of now; faster in the first steps.

        What is zero is zero in the average too: zeros may be wanted.
        """
        if self._training.average == 0:
            return
        keep = min(self._training.average, (1 + step) / (10 + step))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                value = value.detach()
                before = self._average.get(name, value)
                self._average[name] = torch.where(value == 0, value, before.lerp(value, 1 - keep))

    def judged(self) -> GraphModule:
        """The network in eval mode, with the weights of now."""
        self.judge.load_state_dict({**self.module.state_dict(), **self._average})
        self.constraint.rest(self.judge)
        return self.judge

    def rate(self, step: int, steps: int) -> float | None:
        """The learning rate as a share of its peak, where the schedule of removals has its own."""
        schedule = self.constraint.schedule if self._removal is None else self._removal.schedule
        own = None if schedule is None else schedule.rate
        return None if own is None else own(step / steps)

    def cut_what_is_due(self, step: int, steps: int) -> None:
        """Before `step` of `steps`: remove what the schedule wants gone by now; after the last, all of it."""
        self.constraint.due(self.module, step, steps)
        share = None if self._removal is None else self._removal.due(step, steps)
        if self._removal is None or share is None:
            return
        current = replace(self._removal.original, module=copy.deepcopy(self.judged()).cpu())
        after = self._removal.deeper(self.cut, share, current)
        if after != self.cut:
            self._narrow(self._removal, after)

    def _narrow(self, removal: Removal, after: Cut) -> None:
        """Less of everything: the weights, statistics and momenta of what stays go on as they are."""
        before, weights, momenta = self.cut, self.weights(), self._momenta()
        self._average = {}  # begun anew at the new widths
        self._become(removal.program(after))
        fill(self.module, removal.carried(weights, before, after))
        kept = removal.carried(momenta, before, after)
        for name, parameter in self.module.named_parameters():
            if name in kept:
                self.optimizer.state[parameter]["momentum_buffer"] = kept[name].to(self.device)
        self.cut = after

    def _momenta(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        found = {n: state[p].get("momentum_buffer") for n, p in self.module.named_parameters() if p in state}
        return {name: tensor.cpu() for name, tensor in found.items() if tensor is not None}


def channels_last(module: GraphModule) -> GraphModule:
    """The module, changed in place, with its kernels' channels innermost; activations then follow.

    A sixth to a third less time for a step of a convolutional network on a CPU, the numbers the same but for
    rounding. A view of such an activation may need a copy, which `reshape` makes.
    """
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        node.target = torch.ops.aten.reshape.default
    module.recompile()
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def copied(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def fill(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give the module these weights and statistics; positions and counts stay as its graph needs them."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name in weights and tensor.is_floating_point():
                tensor.copy_(weights[name])


def _optimizer(module: nn.Module, training: Training) -> torch.optim.SGD:
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
            # Norm scales and biases are not decayed: they are few, and shrinking them only undoes the norm.
            (decayed if parameter.dim() > 1 else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=training.lr, momentum=0.9, nesterov=True)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
