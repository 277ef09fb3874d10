"""What learners have in common that multiply channels and blocks by something they learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.program.gating import Site, multiplied
from toolchain.train.lesson import Lesson, Verdicts

REFRESHED: Final = 10
"""Steps after which the slopes of resources are taken anew: expected widths change slowly."""


class Masks(ABC):
    """Tensors of its own, `own[name]`, from which a gate [size] is made for each of `sites`."""

    def __init__(self, lesson: Lesson, sites: Sequence[Site], own: Mapping[str, Tensor]) -> None:
        self.lesson, self.sites = lesson, tuple(sites)
        self.own = {name: tensor.requires_grad_(True) for name, tensor in own.items()}
        self._slopes: tuple[Mapping[str, float], ...] = ()
        self._age = 0

    @abstractmethod
    def gate(self, site: Site, *, drawn: bool) -> Tensor:
        """What multiplies the site's units [size]."""

    @abstractmethod
    def counts(self, module: GraphModule) -> dict[str, int]:
        """How many units of every axis are open now."""

    @abstractmethod
    def verdicts(self, module: GraphModule) -> Verdicts:
        """What has been learned."""

    def learnable(self) -> Sequence[Tensor]:
        """Its own tensors."""
        return list(self.own.values())

    def weights(self, module: GraphModule, *, drawn: bool) -> dict[str, Tensor]:
        """The parameters that gates touch, with the gates in them."""
        parameters = dict(module.named_parameters(remove_duplicate=False))
        device = next(iter(parameters.values())).device
        gates = {site.name: self.gate(site, drawn=drawn).to(device) for site in self.sites}
        return multiplied(parameters, self.sites, gates)

    def settle(self, module: GraphModule) -> None:
        """Nothing: the gates say it all."""
        del module

    def epoch_ends(self, module: GraphModule) -> None:
        """The next slopes are new ones, so that a resumed training goes on as an uninterrupted one."""
        del module
        self._age = 0

    def slopes(self, counts: Mapping[str, float]) -> tuple[Mapping[str, float], ...]:
        """The resources' slopes near these counts, or near those of a few steps ago."""
        if self._age % REFRESHED == 0:
            self._slopes = self.lesson.usage.slopes(counts)
        self._age += 1
        return self._slopes

    def state(self) -> dict[str, Any]:
        """Its own tensors, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.own.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Those of a checkpoint; the tensors stay the same objects."""
        with torch.no_grad():
            for name, tensor in self.own.items():
                tensor.copy_(state[name])
