"""A deeper cut of a network whose weights have changed since the last one.

Both cuts are choices of the original's units, so that the graph always comes from one analysis and one
rewriting of the original; only tensors are carried over from the network as it is now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from toolchain.program.axes import attribute
from toolchain.program.channels import examine
from toolchain.program.constants import Cutting
from toolchain.values import Channels, Member, Program

Keep = Mapping[str, Sequence[int]]
Places = Mapping[str, Mapping[int, Tensor]]
"""Tensor name -> dimension -> positions of the original that stay, ascending; whole dimensions left out."""


def places(program: Program, keep: Mapping[str, tuple[int, ...]]) -> Places:
    """What stays of every parameter and buffer of `program` when its groups keep the units `keep`."""
    analysis, module = examine(program), program.module
    cutting = Cutting(analysis=analysis, stays=analysis.kept_atoms(keep), module=module, origin={})
    axes = {id(attribute(module, name)): a for name, a in analysis.tracing.parameters.items()}
    named = chain(
        module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    )
    return {name: cutting.partly_kept(axes[id(t)]) for name, t in named if id(t) in axes}


def narrowed(tensors: Mapping[str, Tensor], before: Places, after: Places) -> dict[str, Tensor]:
    """Tensors cut as `before`, cut deeper as `after`; what `after` does not name is left out.

    They are shaped like the parameters of their names: weights, gradients or momenta.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in after:
            for dim, positions in after[name].items():
                known = before[name].get(dim)
                at = positions if known is None else torch.searchsorted(known, positions)
                tensor = tensor.index_select(dim, at)
            result[name] = tensor
    return result


def same_groups(original: Channels, keep: Keep, at: Places, now: Channels) -> dict[str, str]:
    """The name that each of the original's groups has in the cut network; names follow the first layer.

    Groups that went with a block, or are no longer told apart in the same way, are not named.

    Args:
        original: the groups of the original.
        keep: what the cut kept of them.
        at: the cut's `places`.
        now: the groups of the cut network.
    """
    known: dict[tuple[str, int], list[tuple[str, Member]]] = {}
    for group in now.groups:
        for member in group.members:
            known.setdefault((member.parameter, member.dim), []).append((group.name, member))
    found: dict[str, str] = {}
    for group in original.groups:
        units = keep.get(group.name, range(group.size))
        match = next(
            (
                name
                for member in group.members
                for name, other in known.get((member.parameter, member.dim), ())
                if len(other.index) == len(units) and _alike(member, units, at, other)
            ),
            None,
        )
        if match is not None:
            found[group.name] = match
    return found


def _alike(member: Member, units: Sequence[int], at: Places, other: Member) -> bool:
    """Whether the units, where they are after the cut, are those of `other`, in order."""
    stays = at.get(member.parameter, {}).get(member.dim)
    here = None if stays is None else {position: i for i, position in enumerate(stays.tolist())}
    return all(
        sorted(_moved(member.index[unit], here)) == sorted(found)
        for unit, found in zip(units, other.index, strict=True)
    )


def _moved(positions: Sequence[int], here: Mapping[int, int] | None) -> Iterator[int]:
    return iter(positions) if here is None else (here[p] for p in positions if p in here)
