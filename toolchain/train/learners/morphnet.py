"""MorphNet: masks under an L1 price that asks what each channel costs, then a uniform width multiplier.

    loss = CE + strength * sum over resources and groups of slope / whole * sum |m|

The paper's masks are the scales of batch norms; here every channel has a mask of its own beside them, so that
networks without batch norm learn too. Widths are then the open channels of each group times one factor for
all, so large that the budget is just held; no group becomes wider than it was.
Source: Gordon et al., "MorphNet: Fast & Simple Resource-Constrained Structure Learning of Deep Networks",
CVPR 2018.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.program.gating import Site
from toolchain.train.lesson import Learner, Lesson, Verdicts
from toolchain.train.masks import Masks

STRENGTH: Final = 1.0
"""Nats that a network would cost that uses each resource once, by its slopes at the start."""


class _Masked(Masks):
    def __init__(self, lesson: Lesson) -> None:
        groups = {group.name for group in lesson.channels.groups}
        sites = [site for site in lesson.sites if site.name in groups]
        super().__init__(lesson, sites, {site.name: torch.ones(site.size) for site in sites})
        self._whole = lesson.usage.exact({})

    def gate(self, site: Site, *, drawn: bool) -> Tensor:
        """The masks as they are: nothing is drawn. `minimum` of a group never close."""
        del drawn
        mask = self.own[site.name]
        held = torch.zeros_like(mask, dtype=torch.bool)
        held[mask.detach().topk(site.minimum).indices] = True
        return torch.where(held, mask.clamp(min=torch.finfo(mask.dtype).eps), mask)

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """The masks' absolute values, each times what one more channel of its group uses."""
        del done
        slopes = self.slopes({name: float(count) for name, count in self.counts(module).items()})
        parts = [
            slope / whole * self.own[name].abs().sum()
            for whole, each in zip(self._whole, slopes, strict=True)
            for name, slope in each.items()
        ]
        return self.lesson.strength * STRENGTH * sum(parts[1:], parts[0]) if parts else None

    def settle(self, module: GraphModule) -> None:
        """A mask that crosses 0 is 0 from there on, unless the loss wants it back."""
        del module
        with torch.no_grad():
            for mask in self.own.values():
                mask.clamp_(min=0.0)

    def counts(self, module: GraphModule) -> dict[str, int]:
        """Masks above 0."""
        del module
        return {s.name: max(s.minimum, int((self.own[s.name] > 0).sum())) for s in self.sites}

    def verdicts(self, module: GraphModule) -> Verdicts:
        """Units by their masks, widths in the proportion of what is open."""
        scores = {site.name: tuple(self.own[site.name].detach().tolist()) for site in self.sites}
        return Verdicts(scores=scores, blocks={}, widths=self.counts(module))


LEARNER: Final = Learner(
    name="morphnet",
    summary="masks under an L1 price by resource, then widths scaled to the budget",
    begin=_Masked,
    distils=False,
)
