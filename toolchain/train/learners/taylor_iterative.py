"""A few channels at a time, the least by first-order Taylor, with training between, until the budget.

What a channel is worth is |dL/dg| of a gate g on it, which is |activation x gradient| summed over what reads
it, summed over the steps since the last removal: nats of the loss. Those go that are worth least for what
they cost of the limits. (The source divides by the norm of each layer, eq. 8, which knows no costs: under a
budget of volume it gives away the deep layers, whose channels are cheap.) All groups of channels take part,
those before additions and behind views of fixed size as well. What fully connected layers lose of their
inputs the weights of the others make up for (weight inference rule).
Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017,
eq. 8 and section 2.2; Martineau, "Reduction des couches convolutives dans les reseaux profonds".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.program.gating import Site
from toolchain.train.lesson import Learner, Lesson, Verdicts
from toolchain.train.masks import Masks

ROUNDS: Final = 20
"""Removals, evenly spread: about a twentieth of what has to go each time."""
END: Final = 0.75
"""Share of the training after which nothing goes any more: the epochs after the last cut matter most."""
TINY: Final = 1e-12
"""Of a limit: a channel that saves nothing goes last."""


class _Iterative(Masks):
    def __init__(self, lesson: Lesson) -> None:
        groups = {group.name for group in lesson.channels.groups}
        sites = [site for site in lesson.sites if site.name in groups]
        super().__init__(lesson, sites, {site.name: torch.ones(site.size) for site in sites})
        self._worth = {site.name: torch.zeros(site.size) for site in sites}
        self._rounds, self._done = 0, 0.0
        self._whole = max(lesson.usage.exact({}), default=1.0)

    def learnable(self) -> Sequence[Tensor]:
        """Nothing: gates are open or closed, only their gradients are of interest."""
        return []

    def gate(self, site: Site, *, drawn: bool) -> Tensor:
        """1 where a channel is there, 0 where it has gone."""
        del drawn
        return self.own[site.name]

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """Nothing; how far the training is, is remembered."""
        del module
        self._done = done
        return None

    def settle(self, module: GraphModule) -> None:
        """What the step said of every channel is added up; when it is time, the least of them go."""
        for name, mask in self.own.items():
            if mask.grad is not None:
                self._worth[name] += mask.grad.abs()
                mask.grad = None
        due = min(ROUNDS, int(ROUNDS * self._done / END))
        if due > self._rounds:
            self._rounds = due
            self._remove(module, self._whole + (1.0 - self._whole) * due / ROUNDS)
            self._worth = {name: torch.zeros_like(worth) for name, worth in self._worth.items()}

    def counts(self, module: GraphModule) -> dict[str, int]:
        """Channels that are there."""
        del module
        return {name: int(mask.sum()) for name, mask in self.own.items()}

    def verdicts(self, module: GraphModule) -> Verdicts:
        """Channels that have gone first, then by their worth; widths as they are."""
        scores = {
            site.name: tuple((self.own[site.name].detach() * (1 + self._relative(site.name))).tolist())
            for site in self.sites
        }
        return Verdicts(scores=scores, blocks={}, widths=self.counts(module))

    def state(self) -> dict[str, Any]:
        """Which channels are there, and what is known of them."""
        worth = {name: tensor.clone() for name, tensor in self._worth.items()}
        return {"masks": super().state(), "worth": worth, "rounds": self._rounds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Those of a checkpoint."""
        super().restore(state["masks"])
        self._worth = {name: state["worth"][name].clone() for name in self._worth}
        self._rounds = int(state["rounds"])

    def _relative(self, name: str) -> Tensor:
        """The worth of a group's channels over its norm."""
        worth: Tensor = self._worth[name]
        relative: Tensor = worth / worth.norm().clamp_min(torch.finfo(worth.dtype).tiny)
        return relative

    def _remove(self, module: GraphModule, target: float) -> None:
        """Close the fewest of the least gates with which no resource is above `target` of its limit."""
        order = self._order(module)
        few, many = 0, len(order)
        while few < many:
            middle = (few + many) // 2
            if max(self.lesson.usage.exact(self._without(order[:middle])), default=0.0) <= target:
                many = middle
            else:
                few = middle + 1
        before = self.counts(module)
        with torch.no_grad():
            for name, unit in order[:few]:
                self.own[name][unit] = 0.0
            self._make_up(module, before)

    def _order(self, module: GraphModule) -> list[tuple[str, int]]:
        """Channels that may go, the least first: of every group all that are there but its best `minimum`."""
        saved = self._saved(module)
        found = []
        for site in self.sites:
            worth = self._worth[site.name] / saved[site.name]
            units = self.own[site.name].nonzero().flatten().tolist()
            there = sorted((float(worth[unit]), unit) for unit in units)
            found += [(value, site.name, unit) for value, unit in there[: len(there) - site.minimum]]
        return [(name, unit) for _, name, unit in sorted(found)]

    def _saved(self, module: GraphModule) -> dict[str, float]:
        """What the limits gain by a channel of every group: of the resource that gains most, its share."""
        counts = {name: float(count) for name, count in self.counts(module).items()}
        slopes = self.lesson.usage.slopes(counts)
        return {site.name: max([of.get(site.name, 0.0) for of in slopes] + [TINY]) for site in self.sites}

    def _without(self, gone: Sequence[tuple[str, int]]) -> dict[str, int]:
        counts = {name: int(mask.sum()) for name, mask in self.own.items()}
        for name, _ in gone:
            counts[name] -= 1
        return counts

    def _make_up(self, module: GraphModule, before: Mapping[str, int]) -> None:
        """The weights of fully connected layers times what their inputs were over what they are."""
        after = self.counts(module)
        for site in self.sites:
            if after[site.name] == before[site.name]:
                continue
            for factor in site.factors:
                weight = module.get_parameter(factor.parameter)
                if factor.dim == 1 and weight.dim() == 2:
                    mine = (factor.owner >= 0).to(weight.device)
                    weight[:, mine] *= before[site.name] / after[site.name]


LEARNER: Final = Learner(
    name="taylor-iterative",
    summary="the least channels by Taylor go, a few per cent at a time, with training in between",
    begin=_Iterative,
    distils=False,
    penalizes=False,
)
