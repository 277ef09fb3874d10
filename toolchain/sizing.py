"""The same run on a smaller input: network, data and samples of another size, or of a part of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from toolchain.assembly import material_of
from toolchain.errors import UnsupportedError
from toolchain.input_view import VIEWED, InputView, described
from toolchain.plain import to_plain
from toolchain.program.channels import analyse
from toolchain.program.entrance import narrowed
from toolchain.program.resize import image_size, require_smaller, resized, smaller_sizes
from toolchain.run import Run
from toolchain.train.reduced import Reduced
from toolchain.train.viewed import Viewed
from toolchain.values import Program

SOURCE: Final = "edgefit.source"


def require_sizes(program: Program, asked: float | tuple[tuple[int, int], ...] | None) -> None:
    """Refuse sizes that are not below the network's own, before anything is measured.

    Raises:
        InputError: names the first one.
    """
    if not isinstance(asked, tuple):
        return
    try:
        own = image_size(program)
    except UnsupportedError:
        return  # noted where the sizes are tried
    for size in asked:
        require_smaller(own, size)


def at_size(run: Run, size: tuple[int, int] | None) -> Run:
    """`run` on images of `size` (height, width); itself where that is None.

    Raises:
        InputError: `size` is not smaller than the network's input.
        UnsupportedError: the network does not allow another size; names operator and node.
    """
    if size is None:
        return run
    with run.stage(f"The network for images of {size[0]} x {size[1]}", "capture"):
        program = resized(run.program, size)
        channels = analyse(program)
    data = None if run.data is None else Reduced(data=run.data, size=size)
    material = material_of(program, data, run.material.metadata[SOURCE])
    return replace(run, program=program, channels=channels, data=data, material=material, origin=run)


def at_view(run: Run, view: InputView | None) -> Run:
    """`run` for a network that is handed what `view` leaves of its input; itself where that is None.

    Raises:
        InputError: not a view of this network's input.
        UnsupportedError: the network does not allow the size of the crop.
    """
    if view is None:
        return run
    with run.stage(f"The network for a part of its input: {described(view)}", "capture"):
        program = narrowed(run.program, view)
        channels = analyse(program)
    data = None if run.data is None else Viewed(data=run.data, view=view)
    material = material_of(program, data, run.material.metadata[SOURCE])
    entry = {VIEWED: json.dumps({**to_plain(replace(view, nats=(), block_nats=())), "text": described(view)})}
    material = replace(material, metadata={**material.metadata, **entry})
    return replace(
        run, program=program, channels=channels, data=data, material=material, origin=run, view=view
    )


def smaller_runs(run: Run) -> Iterator[Run]:
    """`run` at every smaller size that the request allows and the network takes, largest first.

    A size that the network does not take is left out, with the reason among the notes.
    """
    asked = run.request.allow_resize
    if asked is None:
        return
    try:
        own = image_size(run.program)
    except UnsupportedError as error:
        run.notes.append(f"--allow-resize: {error}")
        return
    sizes = smaller_sizes(own, asked) if isinstance(asked, float) else sorted(asked, reverse=True)
    refused = 0
    for size in sizes:
        try:
            smaller = at_size(run, size)
        except UnsupportedError as error:
            refused += 1
            if refused == 1:
                run.notes.append(f"--allow-resize: {size[0]} x {size[1]}: {error}")
            continue
        yield smaller
    if not sizes:
        run.notes.append(
            f"--allow-resize: no smaller size of {own[0]} x {own[1]} is within the share allowed"
        )
