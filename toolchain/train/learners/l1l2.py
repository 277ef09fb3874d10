"""The l1/l2 pseudo-norm over all kernels; every epoch the least of them are zeroed, and stay zero.

    loss = CE + strength * |n|_1 / |n|_2,  n_k the mean absolute weight of kernel k of all layers together

After each epoch the kernels that together hold no more than 1 % of the sum of norms are set to zero and kept
there. No teacher, and no budget while it learns: what the solver then has to remove beyond the zeroed units
are those of the smallest kernels. A unit is as large as all its kernels together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.train.lesson import Learner, Lesson, Verdicts
from toolchain.train.pseudo_norm import kernel_norms, negligible, pseudo_norm
from toolchain.values import Group, Member

STRENGTH: Final = 0.005
"""Weight of the pseudo-norm: the thesis' choice for deep cuts of VGG-11."""
SHARE: Final = 0.01
"""Of the sum of norms, that may be zeroed after an epoch."""


class Kernels:
    """`strength` times `norm` of all removable kernels' norms [kernels] is the penalty."""

    def __init__(
        self,
        lesson: Lesson,
        norm: Callable[[Tensor], Tensor] = pseudo_norm,
        strength: float = STRENGTH,
    ) -> None:
        self.lesson, self._whole, self._strength = lesson, norm, strength * lesson.strength
        module = lesson.program.module
        heard = {(f.parameter, f.dim) for site in lesson.sites for f in site.factors}
        self._members = {
            group.name: [m for m in group.members if _is_kernel(module, m) and (m.parameter, 0) not in heard]
            for group in lesson.channels.groups
        }
        names = [m.parameter for members in self._members.values() for m in members]
        self._names = list(dict.fromkeys(names))
        self._removable = {name: self._positions(name) for name in self._names}
        self._zero = {n: torch.zeros(len(module.get_parameter(n)), dtype=torch.bool) for n in self._names}

    def learnable(self) -> Sequence[Tensor]:
        """Nothing of its own."""
        return []

    def weights(self, module: GraphModule, *, drawn: bool) -> dict[str, Tensor]:
        """Nothing differs from the module's own."""
        del module, drawn
        return {}

    def penalty(self, module: GraphModule, done: float) -> Tensor | None:
        """The pseudo-norm, or another norm, of all removable kernels."""
        del done
        norms = self.norms(module)
        return self._strength * self._whole(norms) if len(norms) else None

    def settle(self, module: GraphModule) -> None:
        """Zeroed kernels stay zero."""
        with torch.no_grad():
            for name, zero in self._zero.items():
                module.get_parameter(name)[zero.to(module.get_parameter(name).device)] = 0

    def epoch_ends(self, module: GraphModule) -> None:
        """The kernels that hold next to nothing are zeroed."""
        with torch.no_grad():
            gone = negligible(self.norms(module), SHARE).cpu()
        parts = torch.split(gone, [len(self._removable[name]) for name in self._names])
        for name, part in zip(self._names, parts, strict=True):
            self._zero[name][self._removable[name][part]] = True
        self.settle(module)

    def counts(self, module: GraphModule) -> dict[str, int]:
        """Units that have a kernel which is not zero."""
        scores = self.verdicts(module).scores
        minimum = {group.name: group.minimum for group in self.lesson.channels.groups}
        return {n: max(minimum[n], sum(score > 0 for score in found)) for n, found in scores.items()}

    def verdicts(self, module: GraphModule) -> Verdicts:
        """A unit's share of the sum of all norms; one without kernels of its own has an average kernel's."""
        norms = self.norms(module).detach()
        total = float(norms.sum()) or 1.0
        average = 1.0 / max(len(norms), 1)
        scores = {
            group.name: self._units(module, group, total)
            if self._members[group.name]
            else (average,) * group.size
            for group in self.lesson.channels.groups
        }
        return Verdicts(scores=scores, blocks={})

    def state(self) -> dict[str, Any]:
        """Which kernels are zeroed."""
        return {name: zero.clone() for name, zero in self._zero.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Those of a checkpoint."""
        self._zero = {name: state[name].clone() for name in self._zero}

    def norms(self, module: GraphModule) -> Tensor:
        """Of all removable kernels, layer after layer."""
        found = [kernel_norms(module.get_parameter(n))[self._removable[n]] for n in self._names]
        return torch.cat(found) if found else torch.zeros(0)

    def _units(self, module: GraphModule, group: Group, total: float) -> tuple[float, ...]:
        sums = torch.zeros(group.size)
        for member in self._members[group.name]:
            norms = kernel_norms(module.get_parameter(member.parameter).detach()).cpu()
            sums += torch.stack([norms[list(places)].sum() for places in member.index])
        return tuple((sums / total).tolist())

    def _positions(self, name: str) -> Tensor:
        """The kernels of a weight that some group may remove, ascending."""
        found = {
            place
            for members in self._members.values()
            for member in members
            if member.parameter == name
            for places in member.index
            for place in places
        }
        return torch.tensor(sorted(found), dtype=torch.long)


def _is_kernel(module: GraphModule, member: Member) -> bool:
    """Whether the member is the output dimension of a layer's weight."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return member.dim == 0 and member.parameter in parameters and parameters[member.parameter].dim() > 1


LEARNER: Final = Learner(
    name="l1l2",
    summary="the l1/l2 pseudo-norm of all kernels; the least are zeroed after every epoch",
    begin=Kernels,
    distils=False,
    every_epoch=True,
)
