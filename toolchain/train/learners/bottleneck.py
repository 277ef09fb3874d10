"""Variational information bottleneck: every channel is multiplied by noise that it has to be worth.

    z = mu + epsilon sigma,  epsilon ~ N(0, 1);   loss = CE + strength * mean of log(1 + mu^2 / sigma^2)

The price is twice the Kullback-Leibler divergence of a channel from pure noise at the best prior; a channel
whose signal drowns (mu^2 < sigma^2) carries nothing. (The thesis prints the sign inside the logarithm the
other way round.) No budget while it learns.
Source: Dai et al., "Compressing Neural Networks using the Variational Information Bottleneck", ICML 2018.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.program.gating import Site
from toolchain.train.lesson import Learner, Lesson, Verdicts
from toolchain.train.masks import Masks

STRENGTH: Final = 0.1
"""Nats that a channel of as much signal as noise costs, were it alone, divided by log 2."""
QUIET: Final = -4.0
"""log sigma^2 at the start: noise of 2 % of a channel's energy."""
MEAN: Final = "mean of "
NOISE: Final = "noise of "


class _Noisy(Masks):
    def __init__(self, lesson: Lesson) -> None:
        own: dict[str, Tensor] = {}
        for site in lesson.sites:
            own[MEAN + site.name] = torch.ones(site.size)
            own[NOISE + site.name] = torch.full((site.size,), QUIET)
        super().__init__(lesson, lesson.sites, own)
        self._total = sum(site.size for site in lesson.sites)

    def gate(self, site: Site, *, drawn: bool) -> Tensor:
        """The mean, with noise where it is drawn."""
        mean = self.own[MEAN + site.name]
        if not drawn:
            return mean
        return mean + torch.randn(site.size) * (self.own[NOISE + site.name] / 2).exp()

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """The information that passes, averaged over channels."""
        del module, done
        parts = [torch.log1p(self._signal(site)).sum() for site in self.sites]
        return self.lesson.strength * STRENGTH / self._total * sum(parts[1:], parts[0]) if parts else None

    def counts(self, module: GraphModule) -> dict[str, int]:
        """Channels with more signal than noise."""
        del module
        with torch.no_grad():
            return {s.name: max(s.minimum, int((self._signal(s) > 1).sum())) for s in self.sites}

    def verdicts(self, module: GraphModule) -> Verdicts:
        """Damages are the information that a channel or block passes on: half of log(1 + mu^2 / sigma^2)."""
        del module
        with torch.no_grad():
            nats = {s.name: tuple((torch.log1p(self._signal(s)) / 2).tolist()) for s in self.sites}
        groups = {group.name for group in self.lesson.channels.groups}
        return Verdicts(
            scores={n: v for n, v in nats.items() if n in groups},
            blocks={n: v[0] for n, v in nats.items() if n not in groups},
        )

    def _signal(self, site: Site) -> Tensor:
        """mu^2 / sigma^2."""
        return self.own[MEAN + site.name] ** 2 * (-self.own[NOISE + site.name]).exp()


LEARNER: Final = Learner(
    name="bottleneck",
    summary="channels under noise that they have to be worth, no budget and no teacher while learning",
    begin=_Noisy,
    distils=False,
)
