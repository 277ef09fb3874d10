"""Partition refinement: which channels nothing in a traced graph tells apart, so that any of them may go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from toolchain.program.labels import FIXED, Ints
from toolchain.program.tracing import Tracing


@dataclass(frozen=True)
class Occurrence:
    """A labelled dimension of a parameter: its columns of atoms, and a key equal for equal columns."""

    parameter: str
    dim: int
    vector: Ints
    columns: list[Ints]
    key: tuple[bytes, ...]


def occurrences(tracing: Tracing) -> list[Occurrence]:
    """Every labelled parameter dimension; most are alike (a convolution's outputs, the norm's scales)."""
    return [
        Occurrence(name, dim, vector, columns := tracing.labels.atoms(vector), _key(columns))
        for name, axes in tracing.parameters.items()
        for dim, vector in enumerate(axes.labels)
        if vector is not None
    ]


def _key(columns: list[Ints]) -> tuple[bytes, ...]:
    return tuple(c.tobytes() for c in columns)


def pooled(tracing: Tracing, found: list[Occurrence]) -> tuple[Ints, Ints]:
    """The class of every atom, and the atoms that parameters have in the order in which they occur in them.

    Atoms stay in one class while no dimension of a tensor tells them apart. `found` are the tracing's
    occurrences.
    """
    count = len(tracing.labels)
    classes = np.zeros(count, np.int64)
    first = np.full(count, np.iinfo(np.int64).max)
    distinct: dict[tuple[bytes, ...], list[Ints]] = {}
    for occurrence in found:
        distinct.setdefault(occurrence.key, occurrence.columns)
    place = 0
    for columns in distinct.values():
        for column in columns:
            at = np.flatnonzero(column != FIXED)
            np.minimum.at(first, column[at], place + at)
        place += len(columns[0])
    within = np.flatnonzero(first < np.iinfo(np.int64).max)
    for columns in _activations(tracing):
        distinct.setdefault(_key(columns), columns)
    fresh = 1
    for columns in distinct.values():
        fresh = _refine(classes, columns, fresh)
    return classes, within[np.argsort(first[within], kind="stable")]


def _refine(classes: Ints, columns: list[Ints], fresh: int) -> int:
    """Tell apart atoms of one class that occur here unequally often, or in different company."""
    for number, column in enumerate(columns):
        rows = np.flatnonzero(column != FIXED)
        if not rows.size:
            continue
        atoms, kinds = _occurring(column[rows], [o[rows] for o in columns[:number] + columns[number + 1 :]])
        _, inverse = np.unique(classes[atoms] * (int(kinds.max()) + 1) + kinds, return_inverse=True)
        classes[atoms] = fresh + inverse
        fresh += int(inverse.max()) + 1
    return fresh


def _occurring(column: Ints, others: list[Ints]) -> tuple[Ints, Ints]:
    """The atoms of a column, and a number for each, equal where they occur equally often in equal company."""
    if not others:
        return np.unique(column, return_counts=True)
    _, company = np.unique(np.sort(np.stack(others), axis=0), axis=1, return_inverse=True)
    company = company.reshape(-1)
    count = int(company.max()) + 1
    keys, times = np.unique(column * count + company, return_counts=True)
    atoms, starts = np.unique(keys // count, return_index=True)
    known: dict[bytes, int] = {}
    signatures = np.split(np.stack([keys % count, times], axis=1), starts[1:])
    return atoms, np.array([known.setdefault(part.tobytes(), len(known)) for part in signatures])


def _activations(tracing: Tracing) -> Iterator[list[Ints]]:
    """Columns of the other labelled dimensions, so that every tensor's width follows from kept counts."""
    seen = {id(v) for axes in tracing.parameters.values() for v in axes.labels}
    for value in tracing.values.values():
        for axes in value if isinstance(value, tuple) else (value,):
            for vector in axes.labels if axes is not None else ():
                if vector is not None and id(vector) not in seen:
                    seen.add(id(vector))
                    yield tracing.labels.atoms(vector)
