"""The channel analysis: which positions of which parameters may be removed, and which only together.

Labels are pushed through the graph's own operators (`tracing`, `rules`); what is tied is one *unit*. Units
that occur in the same dimensions, equally often and in the same company, are pooled into one `Group`, so that
every width is a function of how many units each group keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from torch.fx import Node

from toolchain.program.axes import call_of
from toolchain.program.labels import FIXED, Ints, Vector
from toolchain.program.rules import (
    folding,
    making,
    moving,
    pointwise,
    recurrent,
    reducing,
    reshaping,
    weighted,
)
from toolchain.program.tracing import Tracing, trace
from toolchain.program.widths import Widths, term_table
from toolchain.values import Channels, Frozen, Group, Member, Program

_RULES = {
    **pointwise.RULES,
    **moving.RULES,
    **reshaping.RULES,
    **folding.RULES,
    **weighted.RULES,
    **reducing.RULES,
    **recurrent.RULES,
    **making.RULES,
}


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A traced graph with its groups; `group_of[atom]` and `unit_of[atom]` are -1 where it has none."""

    tracing: Tracing
    channels: Channels
    group_of: Ints
    unit_of: Ints

    def kept_atoms(self, keep: Mapping[str, tuple[int, ...]]) -> Ints:
        """1 for every atom that stays when group g keeps the units `keep[g]`, else 0."""
        stays = np.ones(len(self.group_of), np.int64)
        for number, group in enumerate(self.channels.groups):
            if group.name in keep:
                units = np.zeros(group.size, np.int64)
                units[list(keep[group.name])] = 1
                mine = self.group_of == number
                stays[mine] = units[self.unit_of[mine]]
        return stays


def analyse(program: Program) -> Channels:
    """The groups of the program, in graph order, and what is frozen with its reason.

    Time is about linear in nodes plus channels. Neither weights' values nor module classes matter.
    """
    return examine(program).channels


def examine(program: Program) -> Analysis:
    """The channel analysis with everything that rewriting and counting need."""
    tracing = trace(program.module, _RULES, pointwise.broadcast)
    return _pooled(tracing)


def widths(program: Program, channels: Channels) -> Widths:
    """Sizes of parameter dimensions as functions of kept counts.

    Args:
        program: what was analysed.
        channels: what `analyse(program)` gave.
    """
    analysis = examine(program)
    tracing = analysis.tracing
    tables = {
        (name, dim): term_table(tracing.labels, vector, size, analysis.group_of)
        for name, axes in tracing.parameters.items()
        for dim, (vector, size) in enumerate(zip(axes.labels, axes.shape, strict=True))
    }
    module = program.module
    named = chain(
        module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    )
    aliases = {name: name for name in tracing.parameters}
    aliases.update((name, tracing.same[id(t)]) for name, t in named if id(t) in tracing.same)
    shapes = {name: axes.shape for name, axes in tracing.parameters.items()}
    return Widths(
        tables=tables,
        aliases=aliases,
        shapes=shapes,
        names=tuple(g.name for g in channels.groups),
        sizes=tuple(g.size for g in channels.groups),
    )


def _occurrences(tracing: Tracing) -> Iterator[tuple[str, int, list[Ints]]]:
    """Every labelled parameter dimension with its columns of atoms."""
    for name, axes in tracing.parameters.items():
        for dim, vector in enumerate(axes.labels):
            if vector is not None:
                yield name, dim, tracing.labels.atoms(vector)


def _pooled(tracing: Tracing) -> Analysis:
    """Partition refinement: atoms stay in one class while no parameter dimension tells them apart."""
    count = len(tracing.labels)
    classes = np.zeros(count, np.int64)
    first = np.full(count, np.iinfo(np.int64).max)
    found = list(_occurrences(tracing))
    place = 0
    for _, _, columns in found:
        for column in columns:
            at = np.flatnonzero(column != FIXED)
            np.minimum.at(first, column[at], place + at)
        place += len(columns[0])
    fresh = 1
    done: set[tuple[bytes, ...]] = set()
    for columns in (*(c for _, _, c in found), *_activations(tracing)):
        key = tuple(c.tobytes() for c in columns)
        if key not in done:
            fresh = _refine(classes, columns, fresh)
            done.add(key)
    return _grouped(tracing, found, np.where(first < np.iinfo(np.int64).max, classes, 0), first)


def _refine(classes: Ints, columns: list[Ints], fresh: int) -> int:
    """Tell apart atoms of one class that occur here unequally often, or in different company."""
    for number, column in enumerate(columns):
        others = columns[:number] + columns[number + 1 :]
        for rows in _by_company(others, np.flatnonzero(column != FIXED)):
            atoms, times = np.unique(column[rows], return_counts=True)
            _, inverse = np.unique(classes[atoms] * (len(column) + 1) + times, return_inverse=True)
            classes[atoms] = fresh + inverse
            fresh += int(inverse.max()) + 1
    return fresh


def _activations(tracing: Tracing) -> Iterator[list[Ints]]:
    """Columns of the other labelled dimensions, so that every tensor's width follows from kept counts."""
    seen = {id(v) for axes in tracing.parameters.values() for v in axes.labels}
    for value in tracing.values.values():
        for axes in value if isinstance(value, tuple) else (value,):
            for vector in axes.labels if axes is not None else ():
                if vector is not None and id(vector) not in seen:
                    seen.add(id(vector))
                    yield tracing.labels.atoms(vector)


def _by_company(others: list[Ints], at: Ints) -> Iterator[Ints]:
    """The positions `at`, divided by the other atoms they depend on."""
    if not others or not at.size:
        if at.size:
            yield at
        return
    rows = np.sort(np.stack([o[at] for o in others]), axis=0)
    _, inverse = np.unique(rows, axis=1, return_inverse=True)
    inverse = inverse.reshape(-1)
    order = np.argsort(inverse, kind="stable")
    yield from np.split(at[order], np.flatnonzero(np.diff(inverse[order])) + 1)


def _grouped(
    tracing: Tracing, found: list[tuple[str, int, list[Ints]]], classes: Ints, first: Ints
) -> Analysis:
    group_of = np.full(len(classes), -1)
    unit_of = np.full(len(classes), -1)
    atoms = np.flatnonzero(classes > 0)
    atoms = atoms[np.argsort(first[atoms], kind="stable")]
    lists: dict[int, list[int]] = {}
    for atom in atoms.tolist():
        lists.setdefault(int(classes[atom]), []).append(atom)
    for number, members in enumerate(lists.values()):
        group_of[members] = number
        unit_of[members] = np.arange(len(members))
    members_of = _members(found, group_of, unit_of, [len(m) for m in lists.values()])
    names = _names(tracing, members_of)
    notes = _notes(tracing, group_of)
    groups = tuple(
        Group(name=names[i], size=len(m), members=members_of[i], note=notes.get(i, ""))
        for i, m in enumerate(lists.values())
    )
    channels = Channels(groups=groups, frozen=_frozen(tracing, found), unknown=dict(tracing.unknown))
    return Analysis(tracing=tracing, channels=channels, group_of=group_of, unit_of=unit_of)


def _members(
    found: list[tuple[str, int, list[Ints]]], group_of: Ints, unit_of: Ints, sizes: list[int]
) -> list[tuple[Member, ...]]:
    members: list[list[Member]] = [[] for _ in sizes]
    for name, dim, columns in found:
        for column in columns:
            at = np.flatnonzero(group_of[column] >= 0)
            groups = group_of[column[at]]
            for group in np.unique(groups).tolist():
                mine = at[groups == group]
                units = unit_of[column[mine]]
                order = np.argsort(units, kind="stable")
                cuts = np.searchsorted(units[order], np.arange(1, sizes[group]))
                index = tuple(tuple(part.tolist()) for part in np.split(mine[order], cuts))
                members[group].append(Member(parameter=name, dim=dim, index=index))
    return [tuple(m) for m in members]


def _names(tracing: Tracing, members: list[tuple[Member, ...]]) -> list[str]:
    """Each group is called after the first layer, in graph order, that produces its channels."""
    rank: dict[tuple[str, int], int] = {}
    for node in tracing.module.graph.nodes:
        call = call_of(node)
        for weight in [call["weight"], *(call["params"] or ())] if call is not None else ():
            if call is not None and isinstance(weight, Node) and weight.op == "get_attr":
                second = "transpose" in call.op or call["transposed"] or call.op == "embedding"
                rank.setdefault((str(weight.target), 1 if second else 0), len(rank))
    names: list[str] = []
    used: dict[str, int] = {}
    for group in members:
        best = min(group, key=lambda m: (rank.get((m.parameter, m.dim), len(rank)), m.parameter, m.dim))
        base = best.parameter.removesuffix(".weight")
        used[base] = used.get(base, 0) + 1
        names.append(base if used[base] == 1 else f"{base}#{used[base]}")
    return names


def _notes(tracing: Tracing, group_of: Ints) -> dict[int, str]:
    notes: dict[int, list[str]] = {}
    for vector, note in tracing.notes:
        if vector is None:
            continue
        for column in tracing.labels.atoms(vector):
            for group in np.unique(group_of[column]).tolist():
                if group >= 0 and note not in notes.setdefault(group, []):
                    notes[group].append(note)
    return {group: "; ".join(texts) for group, texts in notes.items()}


def _frozen(tracing: Tracing, found: list[tuple[str, int, list[Ints]]]) -> tuple[Frozen, ...]:
    """Positions without any removable atom, by reason."""
    frozen: list[Frozen] = []
    for name, dim, columns in found:
        stays = np.flatnonzero(np.all([c == FIXED for c in columns], axis=0))
        vector: Vector = tracing.parameters[name].labels[dim]
        reasons: dict[str, int] = {}
        for label in vector[stays].tolist() if vector is not None else ():
            reason = tracing.labels.reason(label)
            reasons[reason] = reasons.get(reason, 0) + 1
        frozen.extend(Frozen(parameter=name, dim=dim, count=n, reason=r) for r, n in reasons.items())
    return tuple(frozen)
