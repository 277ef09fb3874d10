"""The filters that produce a group's channels, and what the next layers get when some stand in for others.

Filters are looked at with their batch norms merged: what counts is what a layer puts out after them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from toolchain.program.gating import group_sites
from toolchain.program.merging import merged
from toolchain.program.slices import energies, parameter
from toolchain.values import Channels, Group, Member, Program

Keep = Mapping[str, tuple[int, ...]]
Mixing = Callable[[Tensor, Sequence[int]], Tensor]
"""Of filters [units, elements] and the kept units: each kept one's share in every unit [kept, units]."""


def filters(program: Program, channels: Channels) -> dict[str, Tensor]:
    """Of each group its units' filters [units, elements] in float64, each layer's with a mean energy of 1.

    Groups of which no layer's output dimension is a member are left out.
    """
    plain = merged(program)
    known = dict(plain.module.named_parameters())
    found: dict[str, Tensor] = {}
    for group in channels.groups:
        parts = []
        for member in _producing(program, group):
            own = parameter(program, member.parameter)
            weight = known.get(member.parameter, own)
            rows = _rows(weight if weight.shape == own.shape else own, member)
            energy = rows.square().sum(1).mean()
            if float(energy) > 0:
                parts.append(rows / energy.sqrt())
        if parts:
            found[group.name] = torch.cat(parts, 1)
    return found


def scored(
    program: Program, channels: Channels, of_filters: Callable[[Tensor], Tensor]
) -> dict[str, tuple[float, ...]]:
    """Of each group its units' scores: of its filters [units, elements], or energies where it has none."""
    known = filters(program, channels)
    return {
        group.name: tuple(of_filters(known[group.name]).tolist())
        if group.name in known
        else energies(program, group)
        for group in channels.groups
    }


def taken_over(program: Program, channels: Channels, keep: Keep, mixing: Mixing) -> Program:
    """A copy in which the kept units give the next layers what the others gave, as far as `mixing` says.

    Given:  y = sum over units u of W[:, u] a[u],    a[u] about sum over kept k of M[k, u] a[k]
    Result: y with W[:, k] replaced by sum over u of M[k, u] W[:, u]; what is not kept stays, to be cut

    Groups that something else than layers reads (attention's queries and keys) are left as they are.
    """
    module = copy.deepcopy(program.module)
    result = replace(program, module=module)
    sites = {site.name: site for site in group_sites(program)}
    for name, rows in filters(program, channels).items():
        group = channels.group(name)
        heard = {(f.parameter, f.dim) for f in sites[name].factors if f.dim is not None}
        readers = [m for m in group.members if (m.parameter, m.dim) in heard]
        if name not in keep or len(keep[name]) == group.size or len(readers) == len(group.members):
            continue
        mixed = mixing(rows, keep[name])
        for member in readers:
            _mix(parameter(result, member.parameter), member, keep[name], mixed)
    return result


def _mix(weight: Tensor, member: Member, kept: Sequence[int], mixed: Tensor) -> None:
    """In place: the positions of kept units get their shares of all units' weights."""
    places = _places(member)
    if places is None:
        return
    with torch.no_grad():
        along = weight.movedim(member.dim, 0)
        parts = along[places.flatten()].reshape(*places.shape, *along.shape[1:]).double()
        shares = torch.einsum("ku,up...->kp...", mixed, parts)
        along[places[list(kept)].flatten()] = shares.flatten(0, 1).to(weight.dtype)


def _producing(program: Program, group: Group) -> list[Member]:
    """The output dimensions of layers among a group's members."""
    named = dict(program.module.named_parameters())
    found = [m for m in group.members if m.dim == 0 and m.parameter in named and named[m.parameter].dim() > 1]
    return [m for m in found if _places(m) is not None]


def _rows(weight: Tensor, member: Member) -> Tensor:
    places = _places(member)
    assert places is not None
    return weight.detach()[places.flatten()].double().reshape(len(places), -1)


def _places(member: Member) -> Tensor | None:
    """Positions of every unit [units, positions]; None where units have unequal numbers of them."""
    counts = {len(at) for at in member.index}
    if len(counts) != 1 or 0 in counts:
        return None
    return torch.tensor([list(at) for at in member.index], dtype=torch.long)
