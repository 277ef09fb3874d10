"""Hard-concrete gates on channel groups and residual blocks: the state that several learners share."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.program.gating import Site
from toolchain.program.slices import energies
from toolchain.train.hard_concrete import at_rest, drawn, surprise, survival
from toolchain.train.lesson import Lesson, Verdicts
from toolchain.train.masks import Masks

OPEN: Final = 2.0
"""log_alpha at the start, at least: a gate is open 97 % of the time, and at rest fully."""
SPREAD: Final = 1.0
"""How much higher it is for the channel of a group with the most weight: gates that start alike and learn
little of each other would cross the threshold together."""


class Gates(Masks):
    """One gate a unit and a block; `minimum` units of every group are always as open as at the start.

    Without that a group could close altogether, and no signal pass ("fatal pruning").
    """

    def __init__(self, lesson: Lesson) -> None:
        start = {site.name: torch.full((site.size,), OPEN) for site in lesson.sites}
        for group in lesson.channels.groups:
            order = torch.tensor(energies(lesson.program, group)).argsort(stable=True)
            start[group.name][order] += SPREAD * torch.linspace(0, 1, group.size)
        super().__init__(lesson, lesson.sites, start)

    def log_alpha(self, site: Site) -> Tensor:
        """[size] with the `minimum` highest held up."""
        found = self.own[site.name]
        if not site.minimum:
            return found
        held = torch.zeros_like(found, dtype=torch.bool)
        held[found.detach().topk(site.minimum).indices] = True
        return torch.where(held, found.clamp(min=OPEN), found)

    def gate(self, site: Site, *, drawn: bool) -> Tensor:
        """Hard-concrete draws, or what they are with the draw at its mean."""
        log_alpha = self.log_alpha(site)
        return _drawn(log_alpha) if drawn else at_rest(log_alpha)

    def expected(self) -> dict[str, Tensor]:
        """The expected number of open gates of every site (0-d)."""
        return {site.name: survival(self.log_alpha(site)).sum() for site in self.sites}

    def counts(self, module: GraphModule) -> dict[str, int]:
        """Open gates at rest; a block is gone with its gate, or with all gates of a group inside it."""
        del module
        with torch.no_grad():
            found = {s.name: int((survival(self.log_alpha(s)) > 0.5).sum()) for s in self.sites}
            for block in self._dead():
                found[block] = 0
        return found

    def verdicts(self, module: GraphModule) -> Verdicts:
        """Damages are the nats by which removing contradicts what was learned: -log P(gate closed).

        The plan of the least such damage under a budget is the most probable one, of those that close what
        they must. A block whose inside is closed puts out a constant, and may go for nothing.
        """
        del module
        with torch.no_grad():
            nats = {site.name: tuple(surprise(self.log_alpha(site)).tolist()) for site in self.sites}
            dead = self._dead()
        groups = {group.name for group in self.lesson.channels.groups}
        blocks = {n: 0.0 if n in dead else values[0] for n, values in nats.items() if n not in groups}
        return Verdicts(scores={n: v for n, v in nats.items() if n in groups}, blocks=blocks)

    def _dead(self) -> set[str]:
        """Blocks in which a whole group has closed, by the gates as they were learned."""
        return {
            block
            for block, groups in self.lesson.inside.items()
            if any(bool((survival(self.own[g].detach()) <= 0.5).all()) for g in groups)
        }


def _drawn(log_alpha: Tensor) -> Tensor:
    tiny = torch.finfo(log_alpha.dtype).eps
    return drawn(log_alpha, torch.rand(log_alpha.shape).clamp(tiny, 1 - tiny))
