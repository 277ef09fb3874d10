"""Removing units bit by bit while the network is fine-tuned: how much goes when, and which units.

The plan says how many units each group keeps and which blocks go. A schedule says which share of that is due
at a time; the criterion scores the network as it is then, and the least important of the units still there
go. All numbers are those of the original, so that the outcome is a plan like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

from toolchain.contracts import Criterion, Evidence, Schedule
from toolchain.program.blocks import drop
from toolchain.program.channels import analyse
from toolchain.program.narrowing import narrowed, places, same_groups
from toolchain.program.rewrite import apply
from toolchain.values import Channels, Group, Program

MOMENTS: Final = 20
"""Times in a training, evenly spread, at which units may go: each costs one scoring of the network."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is left of the original: kept units by group (groups not named are whole), blocks dropped."""

    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Removal:
    """How a network gets from `original` to the widths of `final`.

    Blocks go one by one with their share of the schedule, the deepest first. `pinned`: the very units of
    `final` stay, and the criterion only decides on the order in which the others go.
    """

    original: Program
    channels: Channels
    final: Cut
    schedule: Schedule
    criterion: Criterion
    evidence: Evidence
    pinned: bool = False

    def due(self, step: int, steps: int) -> float | None:
        """The share of the removal to be made before this step; None at steps that are no such moment.

        `step` counts from 0; after the last one, at `step == steps`, all is due.
        """
        return due(self.schedule, step, steps)

    def finished(self, cut: Cut) -> bool:
        """Whether the final widths and blocks are reached."""
        widths = all(len(cut.keep.get(n, ())) == len(units) for n, units in self.final.keep.items())
        return widths and len(cut.dropped) == len(self.final.dropped)

    def program(self, cut: Cut) -> Program:
        """The original, cut; with the original's weights."""
        return drop(apply(self.original, self.channels, cut.keep), cut.dropped)

    def deeper(self, cut: Cut, share: float, current: Program) -> Cut:
        """The cut with `share` of the removal made; `current` is the network as it is, and is not changed."""
        gone = round(share * len(self.final.dropped))
        dropped = self.final.dropped[len(self.final.dropped) - gone :]
        narrower = [g for g in self.channels.groups if self._width(g, share) < len(_units(g, cut))]
        keep = dict(cut.keep)
        if narrower:
            scores = self._scores(cut, current)
            for group in narrower:
                keep[group.name] = self._best(group, cut, scores.get(group.name), self._width(group, share))
        return Cut(keep=keep, dropped=dropped)

    def carried(self, tensors: Mapping[str, Tensor], before: Cut, after: Cut) -> dict[str, Tensor]:
        """Tensors of the network cut as `before`, by parameter name, as they are in that cut as `after`."""
        return narrowed(tensors, places(self.original, before.keep), places(self.original, after.keep))

    def _width(self, group: Group, share: float) -> int:
        """Units that are left when `share` of the removal is made."""
        gone = group.size - len(self.final.keep.get(group.name, range(group.size)))
        return group.size - round(share * gone)

    def _scores(self, cut: Cut, current: Program) -> dict[str, Mapping[int, float]]:
        """The criterion's scores of the units that are left, by group and number in the original."""
        now = analyse(current)
        found = self.criterion.score(current, now, self.evidence)
        names = same_groups(self.channels, cut.keep, places(self.original, cut.keep), now)
        return {
            g.name: dict(zip(_units(g, cut), found[names[g.name]], strict=True))
            for g in self.channels.groups
            if g.name in names
        }

    def _best(
        self, group: Group, cut: Cut, scores: Mapping[int, float] | None, width: int
    ) -> tuple[int, ...]:
        """The `width` best units; those of the plan come first where it binds or no score is known."""
        planned = set(self.final.keep[group.name]) if self.pinned or scores is None else set()
        ranked = sorted(
            _units(group, cut),
            key=lambda unit: (unit not in planned, -(scores or {}).get(unit, 0.0), unit),
        )
        return tuple(sorted(ranked[:width]))


def due(schedule: Schedule, step: int, steps: int) -> float | None:
    """The share that the schedule wants removed before `step` of `steps`; None where it is no such moment."""
    moment = MOMENTS * step // steps
    if step > 0 and MOMENTS * (step - 1) // steps == moment:
        return None
    return schedule.removed(moment / MOMENTS)


def _units(group: Group, cut: Cut) -> tuple[int, ...]:
    return cut.keep.get(group.name, tuple(range(group.size)))
