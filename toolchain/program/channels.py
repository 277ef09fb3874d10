"""The channel analysis: which positions of which parameters may be removed, and which only together.

Labels are pushed through the graph's own operators (`tracing`, `rules`); what is tied is one *unit*. Units
that occur in the same dimensions, equally often and in the same company, are pooled into one `Group`, so that
every width is a function of how many units each group keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain.program.axes import attribute, call_of
from toolchain.program.index import Index
from toolchain.program.joins import Units, absent, joined, sound, sources
from toolchain.program.labels import FIXED, Ints
from toolchain.program.pooling import Occurrence, occurrences, pooled
from toolchain.program.rules import (
    addressing,
    folding,
    making,
    moving,
    parting,
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
    **parting.RULES,
    **addressing.RULES,
    **folding.RULES,
    **weighted.RULES,
    **reducing.RULES,
    **recurrent.RULES,
    **making.RULES,
}


_EXAMINED: WeakKeyDictionary[Program, tuple[list[Any], Analysis]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A traced graph with its groups; `group_of[atom]` and `unit_of[atom]` are -1 where it has none.

    Groups are numbered as in `channels.all`. `absent` are atoms that never stay.
    """

    tracing: Tracing
    channels: Channels
    group_of: Ints
    unit_of: Ints
    absent: Ints

    def kept_atoms(self, keep: Mapping[str, tuple[int, ...]]) -> Ints:
        """1 for every atom that stays when group g keeps the units `keep[g]`, else 0."""
        stays = np.ones(len(self.group_of), np.int64)
        for number, group in enumerate(self.channels.groups):
            if group.name in keep:
                units = np.zeros(group.size, np.int64)
                units[list(keep[group.name])] = 1
                mine = self.group_of == number
                stays[mine] = units[self.unit_of[mine]]
        stays[self.absent] = 0
        for one, other, result in joined(self.tracing):
            stays[result] = stays[one] | stays[other]
        return stays


def analyse(program: Program) -> Channels:
    """The groups of the program, in graph order, and what is frozen with its reason.

    Time is about linear in nodes plus channels. Neither weights' values nor module classes matter.
    """
    return examine(program).channels


def examine(program: Program) -> Analysis:
    """The channel analysis with everything that rewriting and counting need; made once for one program."""
    state = _state(program.module)
    known = _EXAMINED.get(program)
    if known is None or len(known[0]) != len(state) or not all(map(_same, known[0], state)):
        known = _EXAMINED[program] = state, _grouped(_traced(program))
    return known[1]


def examine_open(program: Program) -> Analysis:
    """The analysis in which positions of the inputs' dimension 1 (channels, features) may go as well."""
    return _grouped(_traced(program, open_inputs=True))


def _traced(program: Program, *, open_inputs: bool = False) -> Tracing:
    """The labelled graph; additions that cannot stay loose tie their operands."""
    loose = frozenset(program.loose)
    while True:
        tracing = trace(program.module, _RULES, pointwise.broadcast, loose, open_inputs=open_inputs)
        tracing.labels.settle()
        found = sound(tracing)
        if found == loose:
            return tracing
        loose = found


def _state(module: GraphModule) -> list[Any]:
    """All that the analysis depends on: operators, their arguments, shapes, and the values of whole numbers.

    The objects themselves, so that none can be confused with a later one; training changes none of them.
    """
    state: list[Any] = []
    for node in module.graph.nodes:
        state += (node, node.target, node.args, node.kwargs, node.meta.get("val"))
        if node.op == "get_attr":
            value = attribute(module, str(node.target))
            state.append(value)
            if isinstance(value, Tensor):
                state += value.shape
                state.append(value._version if _counts(value) else 0)
    return state


def _counts(value: Tensor) -> bool:
    """Whether the values matter: whole numbers may be positions."""
    return not value.dtype.is_floating_point and not value.is_inference()


def _same(one: object, other: object) -> bool:
    return one is other or (isinstance(one, int) and one == other)


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
        names=tuple(g.name for g in channels.all),
        sizes=tuple(g.size for g in channels.all),
    )


def _grouped(tracing: Tracing) -> Analysis:
    """Number groups and their units in the order in which parameters have them.

    Groups of what loose additions put out come last.
    """
    found = occurrences(tracing)
    classes, atoms = pooled(tracing, found)
    _, start, class_of = np.unique(classes[atoms], return_index=True, return_inverse=True)
    made = np.zeros(len(classes), bool)
    for _, _, result in joined(tracing):
        made[result] = True
    late = made[atoms][start]
    number = np.argsort(np.lexsort((start, late)))[class_of]
    group_of = np.full(len(classes), -1)
    unit_of = np.full(len(classes), -1)
    group_of[atoms] = number
    order = np.argsort(number, kind="stable")
    sizes = np.bincount(number)
    unit_of[atoms[order]] = np.arange(len(atoms)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members_of = _members(found, group_of, unit_of, sizes.tolist())
    names = _names(tracing, members_of)
    sources_of = _sources(tracing, group_of, unit_of, sizes.tolist())
    notes, minima = _notes(tracing, group_of), _minima(tracing, group_of)
    for i, units in sources_of.items():
        for source, _ in chain.from_iterable(units):
            minima[source] = max(minima.get(source, 1), minima.get(i, 1))
    groups = tuple(
        Group(
            name=names[i],
            size=size,
            members=members_of[i],
            minimum=min(size, minima.get(i, 1)),
            note=notes.get(i, ""),
            sources=tuple(tuple((names[g], u) for g, u in unit) for unit in sources_of.get(i, ())),
        )
        for i, size in enumerate(sizes.tolist())
    )
    first = len(groups) - len(sources_of)
    channels = Channels(
        groups=groups[:first],
        frozen=_frozen(tracing, found),
        unknown=dict(tracing.unknown),
        merged=groups[first:],
    )
    return Analysis(
        tracing=tracing,
        channels=channels,
        group_of=group_of,
        unit_of=unit_of,
        absent=absent(tracing, group_of),
    )


def _sources(tracing: Tracing, group_of: Ints, unit_of: Ints, sizes: list[int]) -> dict[int, list[Units]]:
    """The units that each unit of a group stays with, for groups of what loose additions put out."""
    found: dict[int, list[Units]] = {}
    for atom, units in sources(tracing, group_of, unit_of).items():
        group = int(group_of[atom])
        if group >= 0:
            found.setdefault(group, [()] * sizes[group])[int(unit_of[atom])] = units
    return found


def _members(
    found: list[Occurrence], group_of: Ints, unit_of: Ints, sizes: list[int]
) -> list[tuple[Member, ...]]:
    members: list[list[Member]] = [[] for _ in sizes]
    known: dict[tuple[bytes, ...], list[tuple[int, Index]]] = {}
    for occurrence in found:
        if occurrence.key not in known:
            known[occurrence.key] = [
                pair for column in occurrence.columns for pair in _indices(column, group_of, unit_of, sizes)
            ]
        for group, index in known[occurrence.key]:
            members[group].append(Member(parameter=occurrence.parameter, dim=occurrence.dim, index=index))
    return [tuple(m) for m in members]


def _indices(column: Ints, group_of: Ints, unit_of: Ints, sizes: list[int]) -> Iterator[tuple[int, Index]]:
    """The groups that occur in a column, each with its units' positions there."""
    groups = group_of[column]
    for group in np.unique(groups[groups >= 0]).tolist():
        mine = np.flatnonzero(groups == group)
        units = unit_of[column[mine]]
        order = np.argsort(units, kind="stable")
        starts = np.searchsorted(units[order], np.arange(sizes[group] + 1))
        yield group, Index(mine[order], starts)


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
    """`what in node, node, ... and 7 more` for the groups over which operators compute, by group."""
    notes: dict[int, dict[str, dict[str, None]]] = {}
    for vector, note in tracing.notes:
        if vector is None:
            continue
        node, _, what = note.partition(": ")
        name, _, op = node.partition(" (")
        node = name if name.startswith(op.removesuffix(")")) else node
        for column in tracing.labels.atoms(vector):
            for group in np.unique(group_of[column]).tolist():
                if group >= 0:
                    notes.setdefault(group, {}).setdefault(what, {})[node] = None
    return {
        group: "; ".join(f"{what} in {_some(list(nodes))}" for what, nodes in texts.items())
        for group, texts in notes.items()
    }


def _some(names: list[str], shown: int = 3) -> str:
    """The first of many names."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _minima(tracing: Tracing, group_of: Ints) -> dict[int, int]:
    """How many units of a group always stay, where operators ask for several."""
    minima: dict[int, int] = {}
    for vector, least in tracing.minima:
        for column in tracing.labels.atoms(vector) if vector is not None else ():
            for group in np.unique(group_of[column]).tolist():
                if group >= 0:
                    minima[group] = max(least, minima.get(group, 1))
    return minima


def _frozen(tracing: Tracing, found: list[Occurrence]) -> tuple[Frozen, ...]:
    """Positions without any removable atom, by reason."""
    frozen: list[Frozen] = []
    for occurrence in found:
        stays = ~np.any([c != FIXED for c in occurrence.columns], axis=0)
        if stays.any():
            reasons = tracing.labels.reasons(occurrence.vector[stays])
            frozen.extend(
                Frozen(parameter=occurrence.parameter, dim=occurrence.dim, count=n, reason=r)
                for r, n in reasons.items()
            )
    return tuple(frozen)
