"""Which operators of a file ran on the accelerator, and which fell back from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Away:
    """An operator that did not run on the accelerator: its name in the file, its kind, and where it ran."""

    name: str
    kind: str
    device: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a runtime ran a file's `operators`, as it tells; `away` are those that left the `accelerator`."""

    accelerator: str
    operators: int
    away: tuple[Away, ...] = ()


def newly_away(new: Placement, old: Placement) -> tuple[Away, ...]:
    """Operators of `new` that left the accelerator beyond those that did in `old`.

    Compared by kind: names of operators change when a network is exported anew. Of a kind with more
    fall-backs than before, those whose names are new come first.
    """
    before = Counter(away.kind for away in old.away)
    known = {(away.kind, away.name) for away in old.away}
    found: list[Away] = []
    for kind, count in Counter(away.kind for away in new.away).items():
        mine = [away for away in new.away if away.kind == kind]
        mine.sort(key=lambda away: (away.kind, away.name) in known)
        found += mine[: max(0, count - before[kind])]
    return tuple(found)
