"""Gates on parts of a network's input, beside whatever presses the network itself to become smaller.

    loss = that of the other method + price * (mean of P(z > 0) over channels or features
                                               + mean of P(z > 0) over squares of pixels)

A hard-concrete gate multiplies the weights that listen to a channel or feature, so that a closed one is a
block of zeros in the first layers; squares of an image have gates that multiply their pixels. A part whose
absence costs less than its share of the price closes; the gates keep what the loss wants.
Source: Louizos, Welling and Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018
(the gates); Hubens et al., joint pruning of weights and input data (what they are put on).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.program.entrance import MASK, Entrance
from toolchain.program.gating import multiplied
from toolchain.train.gates import FASTEST, OPEN, TRAVEL
from toolchain.train.hard_concrete import at_rest, sampled, surprise, survival
from toolchain.train.lesson import Lesson, Pressure, Verdicts

SQUARES: Final = "squares"
GATES: Final = "gates of the input"


class InputGates:
    """`network`'s pressure, and gates on the parts of the lesson's entrance, which go at their own pace."""

    def __init__(self, lesson: Lesson, network: Pressure) -> None:
        assert lesson.entrance is not None
        self._entrance: Entrance = lesson.entrance
        self._network, self._price = network, lesson.price
        self._own = {site.name: torch.full((site.size,), OPEN) for site in self._entrance.sites}
        if self._entrance.block:
            self._own[SQUARES] = torch.full(self._entrance.squares, OPEN)
        for tensor in self._own.values():
            tensor.requires_grad_(True)
        self._parts = sum(site.size for site in self._entrance.sites)
        self._optimizer = torch.optim.Adam(list(self._own.values()), eps=self._gentle())
        self._done, self._passed = 0.0, 0.0

    def learnable(self) -> Sequence[Tensor]:
        """The network's; those on the input are moved in `settle`."""
        return self._network.learnable()

    def weights(self, module: GraphModule, *, drawn: bool) -> dict[str, Tensor]:
        """The network's, with the input's gates on those that listen to it; and what multiplies images."""
        found = self._network.weights(module, drawn=drawn)
        parameters = {**dict(module.named_parameters(remove_duplicate=False)), **found}
        device = next(iter(parameters.values())).device
        sites = self._entrance.sites
        gates = {site.name: self._gate(site.name, drawn=drawn).to(device) for site in sites}
        found |= multiplied(parameters, sites, gates)
        if SQUARES in self._own:
            gate = self._gate(SQUARES, drawn=True) if drawn else self._lasting()
            found[MASK] = self._spread(gate).to(device)
        return found

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """The network's, and the price of the parts that are expected to stay."""
        self._passed, self._done = max(done - self._done, 0.0), done
        likely = [survival(self._held(site.name)).sum() / self._parts for site in self._entrance.sites]
        if SQUARES in self._own:
            likely.append(survival(self._held(SQUARES)).mean())
        price = self._price * torch.stack(likely).sum()
        network = self._network.penalty(module, done)
        return price if network is None else network + price

    def settle(self, module: GraphModule) -> None:
        """A step of the input's gates; the first of all teaches only how long steps are."""
        if self._passed > 0:
            self._optimizer.param_groups[0]["lr"] = min(TRAVEL * self._passed, FASTEST)
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._network.settle(module)

    def epoch_ends(self, module: GraphModule) -> None:
        """The network's."""
        self._network.epoch_ends(module)

    def counts(self, module: GraphModule) -> dict[str, int]:
        """The network's."""
        return self._network.counts(module)

    def verdicts(self, module: GraphModule) -> Verdicts:
        """The network's, and -log P(gate closed) for every part of the input."""
        found = self._network.verdicts(module)
        with torch.no_grad():
            nats = {name: surprise(self._held(name)) for name in self._own}
        squares = nats.pop(SQUARES).tolist() if SQUARES in nats else []
        return Verdicts(
            scores=found.scores,
            blocks=found.blocks,
            widths=found.widths,
            inputs={name: tuple(each.tolist()) for name, each in nats.items()},
            squares=tuple(tuple(row) for row in squares),
        )

    def state(self) -> dict[str, Any]:
        """The network's, the gates, and how they have moved."""
        gates = {name: tensor.detach().clone() for name, tensor in self._own.items()}
        return {
            **self._network.state(),
            GATES: [gates, copy.deepcopy(self._optimizer.state_dict()), self._done],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """That of a checkpoint."""
        self._network.restore({name: value for name, value in state.items() if name != GATES})
        gates, moved, self._done = state[GATES]
        with torch.no_grad():
            for name, tensor in self._own.items():
                tensor.copy_(gates[name])
        self._optimizer.load_state_dict(moved)

    def _held(self, name: str) -> Tensor:
        """log_alpha with the highest held up that have to stay: something of the input always does."""
        found = self._own[name]
        least = next((site.minimum for site in self._entrance.sites if site.name == name), 1)
        kept = torch.zeros(found.numel(), dtype=torch.bool)
        kept[found.detach().flatten().topk(least).indices] = True
        return torch.where(kept.reshape(found.shape), found.clamp(min=OPEN), found)

    def _gate(self, name: str, *, drawn: bool) -> Tensor:
        log_alpha = self._held(name)
        return sampled(log_alpha) if drawn else at_rest(log_alpha)

    def _lasting(self) -> Tensor:
        """Squares at rest, there or not: half of a pixel cannot be left out."""
        return (survival(self._held(SQUARES)) > 0.5).float()

    def _spread(self, gate: Tensor) -> Tensor:
        """The squares' gates as what multiplies images [1, 1, height, width]."""
        block = self._entrance.block
        height, width = self._entrance.shape[1:]
        return gate.repeat_interleave(block, 0).repeat_interleave(block, 1)[None, None, :height, :width]

    def _gentle(self) -> float:
        """The slope of the price at the start, of the most numerous parts: weaker ones move gates less."""
        most = max(self._parts, self._own[SQUARES].numel() if SQUARES in self._own else 0)
        start = survival(torch.tensor(OPEN))
        return max(float(self._price / most * start * (1 - start)), 1e-12)
