"""What a method that prunes while it trains must offer, and what it works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.fx import GraphModule

from toolchain.program.entrance import Entrance
from toolchain.program.gating import Site
from toolchain.values import Channels, Program


class Usage(Protocol):
    """The budgeted resources as functions of widths, each relative to its limit: 1 is a full budget."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the limits are called: ms, macs, ..."""

    def exact(self, counts: Mapping[str, int]) -> tuple[float, ...]:
        """Each resource of the network that keeps `counts` units an axis; axes not named are whole."""

    def near(self, expected: Mapping[str, float]) -> tuple[float, ...]:
        """Each resource at expected counts, which are no whole numbers."""

    def slopes(self, expected: Mapping[str, float]) -> tuple[Mapping[str, float], ...]:
        """For each resource: by how much it grows with every unit of an axis, near these expected counts."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a network that learns to become smaller learns with.

    `sites` are the gates of all groups, then of the residual blocks that can have one; axes are called like
    their sites. `inside[block]` are the groups that lie wholly in that block's branch. `transition` is how a
    moving budget moves, `strength` a factor on the weight of the method's penalty. Where `entrance` is given,
    parts of the input may go too, each for less than its share of `price` nats; the program is a masked one
    if pixels are among them.
    """

    program: Program
    channels: Channels
    sites: tuple[Site, ...]
    inside: Mapping[str, tuple[str, ...]]
    usage: Usage
    transition: str = "sigmoid"
    strength: float = 1.0
    entrance: Entrance | None = None
    price: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What a network has learned about its parts: the damage of removing each unit and each block.

    Only units of one group have to be comparable where `widths` says how wide groups should be in proportion;
    without it the damages decide on the widths, and are comparable between groups and blocks. `inputs` and
    `squares` are the damages of leaving out parts of the input: of every site of the entrance, and of the
    squares of an image, row by row.
    """

    scores: Mapping[str, tuple[float, ...]]
    blocks: Mapping[str, float]
    widths: Mapping[str, int] | None = None
    inputs: Mapping[str, tuple[float, ...]] | None = None
    squares: tuple[tuple[float, ...], ...] = ()


class Pressure(Protocol):
    """What presses a network to become smaller while it learns; changes with every step."""

    def learnable(self) -> Sequence[Tensor]:
        """Tensors of its own that are learned besides the network's weights; perhaps none."""

    def weights(self, module: GraphModule, *, drawn: bool) -> dict[str, Tensor]:
        """The parameters that differ from the module's own, as the network is to use them.

        `drawn`: with the random draws of a training step, else as they are at rest.
        """

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """What is added to the loss (0-d) when the share `done` of the training is over; None for nothing."""

    def settle(self, module: GraphModule) -> None:
        """After every step: change the module's weights in place where the method says so."""

    def epoch_ends(self, module: GraphModule) -> None:
        """After every epoch, before the network is judged: the same."""

    def counts(self, module: GraphModule) -> dict[str, int]:
        """How many units of every axis are open now."""

    def verdicts(self, module: GraphModule) -> Verdicts:
        """What has been learned."""

    def state(self) -> dict[str, Any]:
        """All that changes, for a checkpoint: tensors and plain values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A method that prunes while it trains. What it ends with is decided on by the budget's solver.

    `begin` starts a lesson; None: nothing is learned, and `judge` gives the verdicts from the network and the
    criterion's scores. `distils`: the unpruned network is the teacher. `branches`: it can
    learn with loose additions, of whose branches each has channels of its own. `inputs`: it removes parts of
    the network's input, which its lesson then describes. `every_epoch`: it learns alike whatever the limits,
    the network of every epoch is kept, and which of them is taken is decided for each limit afterwards.
    `penalizes`: there is a penalty, which may be made stronger.
    """

    name: str
    summary: str
    begin: Callable[[Lesson], Pressure] | None
    judge: Callable[[Lesson, Mapping[str, tuple[float, ...]]], Verdicts] | None = None
    distils: bool = True
    branches: bool = False
    inputs: bool = False
    every_epoch: bool = False
    penalizes: bool = True
