"""Another order of the channels, so that those which the same branches keep lie side by side.

Given:  channels a b c d e; a branch keeps a, c and e
Result: the same network with the channels in the order b d a c e: what the branch is added to is one range
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.program.axes import Axes, attribute, call_of
from toolchain.program.channels import Analysis, examine
from toolchain.program.copying import duplicate
from toolchain.program.joins import joined
from toolchain.program.labels import Ints
from toolchain.values import Member, Program

Keep = Mapping[str, tuple[int, ...]]
Moves = Mapping[tuple[str, int], Ints]
"""(parameter, dimension) -> for every position the one that its content comes from."""


def arranged(program: Program, keep: Keep, by: Keep) -> tuple[Program, dict[str, tuple[int, ...]]]:
    """A program that computes the same, of which `keep` leaves fewer, longer runs, and `keep` in its units.

    Args:
        program: with loose additions; not changed.
        keep: units by group of its channel analysis.
        by: what decides on the order: `keep` without what vanishes whole.
    """
    tied = examine(replace(program, loose=()))
    orders = {
        number: order
        for number, codes in _codes(program, tied, by).items()
        if (order := _order(codes)) != list(range(len(codes))) and movable(tied, number)
    }
    if not orders:
        return program, dict(keep)
    moves = _moves(tied, orders)
    groups = {group.name: group for group in examine(program).channels.groups}
    moved = {name: _moved(groups[name].members[0], units, moves) for name, units in keep.items()}
    return _permuted(program, moves), moved


def movable(analysis: Analysis, number: int) -> bool:
    """Whether a group's units can change places: they lie alike in all tensors, no layer slides over them."""
    tracing = analysis.tracing
    for node, dims in tracing.restricted.items():
        call = call_of(node)
        source = tracing.axes(next(call.tensors())) if call is not None else None
        if call is not None and source is not None and call.op.startswith("conv"):
            slid = [v for d in dims if (v := source.labels[d]) is not None]
            if any((analysis.group_of[c] == number).any() for v in slid for c in tracing.labels.atoms(v)):
                return False
    return all(_alike(analysis, number, vector) for vector in _vectors(analysis))


def _vectors(analysis: Analysis) -> Iterator[Ints]:
    """All labelled dimensions, each once."""
    tracing, seen = analysis.tracing, set[int]()
    values = (v if isinstance(v, tuple) else (v,) for v in tracing.values.values())
    every: list[Axes | None] = [*tracing.parameters.values(), *(axes for value in values for axes in value)]
    for axes in every:
        for vector in axes.labels if axes is not None else ():
            if vector is not None and id(vector) not in seen:
                seen.add(id(vector))
                yield vector


def _alike(analysis: Analysis, number: int, vector: Ints) -> bool:
    """Whether the group's units have equally many positions here, equally far from their first ones."""
    columns = analysis.tracing.labels.atoms(vector)
    mine = [np.flatnonzero(analysis.group_of[column] == number) for column in columns]
    if not any(len(at) for at in mine):
        return True
    if len(columns) > 1:
        return False
    units = analysis.unit_of[columns[0][mine[0]]]
    _, times = np.unique(units, return_counts=True)
    if (times != times[0]).any():
        return False
    places = mine[0][np.argsort(units, kind="stable")].reshape(-1, int(times[0]))
    distances = places - places[:, :1]
    return bool((distances == distances[:1]).all())


def _codes(program: Program, tied: Analysis, keep: Keep) -> dict[int, list[int]]:
    """For the units of every group that branches choose of: which branches keep it, one bit each."""
    loose = examine(program)
    stays, made, found = loose.kept_atoms(keep), set[int](), dict[int, list[int]]()
    for join, (one, other, result) in zip(loose.tracing.joins, joined(loose.tracing), strict=True):
        vector = tied.tracing.axes(join.node).labels[join.dim]
        for atoms in (one, other):
            if vector is None or not made.isdisjoint(atoms.tolist()):
                continue
            columns = tied.tracing.labels.atoms(vector)
            column = columns[0] if len(columns) == 1 else np.zeros(0, np.int64)
            for number in np.unique(tied.group_of[column]).tolist():
                if number >= 0:
                    codes = found.setdefault(number, [0] * tied.channels.groups[number].size)
                    for at in np.flatnonzero(tied.group_of[column] == number).tolist():
                        unit = int(tied.unit_of[column[at]])
                        codes[unit] = 2 * codes[unit] + int(stays[atoms[at]])
        made.update(result.tolist())
    return found


def _order(codes: Sequence[int]) -> list[int]:
    """Units by the rank of their codes in a Gray code: of neighbours few branches differ."""

    def rank(code: int) -> int:
        found = code
        while code := code >> 1:
            found ^= code
        return found

    return sorted(range(len(codes)), key=lambda unit: (rank(codes[unit]), unit))


def _moves(analysis: Analysis, orders: Mapping[int, Sequence[int]]) -> Moves:
    found: dict[tuple[str, int], Ints] = {}
    for number, order in orders.items():
        for member in analysis.channels.groups[number].members:
            key = member.parameter, member.dim
            if key not in found:
                found[key] = np.arange(analysis.tracing.parameters[member.parameter].shape[member.dim])
            for unit, source in enumerate(order):
                found[key][list(member.index[unit])] = member.index[source]
    return found


def _moved(member: Member, units: Sequence[int], moves: Moves) -> tuple[int, ...]:
    """The units whose content was that of `units`, by where they are in one of their parameters."""
    source = moves.get((member.parameter, member.dim))
    if source is None:
        return tuple(units)
    kept = {place for unit in units for place in member.index[unit]}
    return tuple(unit for unit, places in enumerate(member.index) if int(source[places[0]]) in kept)


def _permuted(program: Program, moves: Moves) -> Program:
    names = {id(attribute(program.module, name)): name for name, _ in moves}
    dims: dict[str, list[int]] = {}
    for name, dim in moves:
        dims.setdefault(name, []).append(dim)

    def moved(tensor: Tensor) -> Tensor:
        name, result = names.get(id(tensor), ""), tensor.detach().clone()
        for dim in dims.get(name, ()):
            result = result.index_select(dim, torch.from_numpy(moves[name, dim]))
        parameter = isinstance(tensor, nn.Parameter)
        return nn.Parameter(result, requires_grad=tensor.requires_grad) if parameter else result

    return replace(program, module=duplicate(program.module, moved)[0])
