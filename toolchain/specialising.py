"""A run for some of the classes only: the network's head narrowed to them, the data filtered."""

from __future__ import annotations

from toolchain.contracts import Data
from toolchain.program.heads import narrowed_head
from toolchain.train.selection import numbers_of, select
from toolchain.values import Program, Request


def specialised(request: Request, program: Program, data: Data | None) -> tuple[Program, Data | None, str]:
    """The network and the data for the classes asked for, and a note; both as they are where none was named.

    Raises:
        InputError: a class that is not there, or without samples.
        UnsupportedError: the head cannot be narrowed.
    """
    if not request.classes:
        return program, data, ""
    shape = program.outputs[0].shape
    count = (shape[1] if len(shape) > 1 else None) or 0
    known = program.classes
    if data is None:
        wanted = numbers_of(request.classes, known, count)
    else:
        data, wanted = select(data, request.classes, known, count)
    narrow = narrowed_head(program, wanted)
    names = ", ".join(known[n] if known else str(n) for n in wanted)
    note = (
        f"specialised on {len(wanted)} of {count} classes ({names}): the original is the network with these"
    )
    return narrow, data, note
