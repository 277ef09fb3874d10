"""Hard-concrete gates on channel groups: the state that several learners share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.program.gating import Site
from toolchain.program.slices import energies
from toolchain.train.hard_concrete import at_rest, sampled, surprise, survival
from toolchain.train.lesson import Lesson, Verdicts
from toolchain.train.masks import Masks
from toolchain.values import Group

OPEN: Final = 2.0
"""log_alpha at the start, at least: a gate is open 97 % of the time, and at rest fully."""
TRAVEL: Final = 20.0
"""Way that a gate can make in the whole training: short trainings let them move faster."""
FASTEST: Final = 0.1
"""Largest step of a gate: longer ones lead far past a budget before the pressure ends."""
SPREAD: Final = 1.0
"""How much higher it is for the channel of a group with the most weight: gates that start alike and learn
little of each other would cross the threshold together."""


class Gates(Masks):
    """One gate a unit; outside of blocks `minimum` units of a group are always as open as at the start.

    Without that a group could close altogether, and no signal pass ("fatal pruning"). A block has no gate: it
    vanishes where a whole group inside it closes, as in the paper on budget-aware regularization. A gate of
    its own, which is under the pressure of all its channels together, closes long before any of theirs.
    """

    def __init__(self, lesson: Lesson) -> None:
        groups = {group.name: group for group in lesson.channels.groups}
        sites = [site for site in lesson.sites if site.name in groups]
        start = {site.name: torch.full((site.size,), OPEN) for site in sites}
        for group in groups.values():
            order = torch.tensor(energies(lesson.program, group)).argsort(stable=True)
            start[group.name][order] += SPREAD * torch.linspace(0, 1, group.size)
        super().__init__(lesson, sites, start)
        self._sources = {group.name: _places(group) for group in lesson.channels.merged}
        inside = {name for groups in lesson.inside.values() for name in groups}
        self._held = {site.name: 0 if site.name in inside else site.minimum for site in sites}

    def log_alpha(self, site: Site) -> Tensor:
        """[size] with the highest held up that always stay."""
        found, count = self.own[site.name], self._held[site.name]
        if not count:
            return found
        held = torch.zeros_like(found, dtype=torch.bool)
        held[found.detach().topk(count).indices] = True
        return torch.where(held, found.clamp(min=OPEN), found)

    def gate(self, site: Site, *, drawn: bool) -> Tensor:
        """Hard-concrete draws, or what they are with the draw at its mean."""
        log_alpha = self.log_alpha(site)
        return sampled(log_alpha) if drawn else at_rest(log_alpha)

    def expected(self) -> dict[str, Tensor]:
        """How many gates of every site are expected to be open, how likely every block is still there (0-d).

        And how many channels loose additions are expected to put out.
        """
        likely = {site.name: survival(self.log_alpha(site)) for site in self.sites}
        there = {name: 1 - (1 - each).prod() for name, each in likely.items()}
        blocks = {
            block: torch.stack([there[group] for group in groups]).prod()
            for block, groups in self.lesson.inside.items()
            if groups
        }
        return {name: each.sum() for name, each in likely.items()} | blocks | self._added(likely)

    def counts(self, module: GraphModule) -> dict[str, int]:
        """Open gates at rest; a block is gone with all gates of a group inside it."""
        del module
        with torch.no_grad():
            open_ = {s.name: (survival(self.log_alpha(s)) > 0.5).float() for s in self.sites}
            found = {s.name: max(s.minimum, int(open_[s.name].sum())) for s in self.sites}
            for block in self._dead():
                found[block] = 0
                for group in self.lesson.inside[block]:
                    open_[group] = torch.zeros_like(open_[group])
            found |= {name: round(float(count)) for name, count in self._added(open_).items()}
        return found

    def verdicts(self, module: GraphModule) -> Verdicts:
        """Damages are the nats by which removing contradicts what was learned: -log P(gate closed).

        The plan of the least such damage under a budget is the most probable one, of those that close what
        they must. A block goes with the group inside it that closes most easily, for nothing where that has
        closed: it puts out a constant then.
        """
        del module
        with torch.no_grad():
            nats = {site.name: tuple(surprise(self.log_alpha(site)).tolist()) for site in self.sites}
            dead = self._dead()
        blocks = {
            block: 0.0 if block in dead else min(sum(nats[group]) for group in groups)
            for block, groups in self.lesson.inside.items()
            if groups
        }
        return Verdicts(scores=nats, blocks=blocks)

    def _added(self, likely: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How many channels loose additions put out (0-d), if gates are open this likely, each for itself."""
        found: dict[str, Tensor] = {}
        for group in self.lesson.channels.merged:
            absent = torch.ones(group.size)
            for source, (places, units) in self._sources[group.name].items():
                absent = absent * torch.ones(group.size).index_put((places,), 1 - likely[source][units])
            found[group.name] = (1 - absent).sum()
        return found

    def _dead(self) -> set[str]:
        """Blocks in which a whole group has closed, by the gates as they were learned."""
        return {
            block
            for block, groups in self.lesson.inside.items()
            if any(bool((survival(self.own[g].detach()) <= 0.5).all()) for g in groups)
        }


def _places(group: Group) -> dict[str, tuple[Tensor, Tensor]]:
    """For every source of a merged group: the units that it can make stay, and its own units that do."""
    found: dict[str, list[tuple[int, int]]] = {}
    for unit, units in enumerate(group.sources):
        for name, source in units:
            found.setdefault(name, []).append((unit, source))
    columns = ((name, torch.tensor(pairs).T) for name, pairs in found.items())
    return {name: (places, units) for name, (places, units) in columns}
