"""The cases that one command line asks for: every target with every budget, each with its own folder."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from typing import Final

from toolchain.errors import InputError
from toolchain.flags import request_of
from toolchain.values import Request

_LIMITS: Final = ("ms", "mb", "macs", "params", "neurons")
_UNITS: Final = (("G", 10**9), ("M", 10**6), ("k", 10**3))


def requests_of(flags: argparse.Namespace, command: str) -> tuple[Request, ...]:
    """The requests that the flags of `compress` and `plan` make, one a case.

    A single case goes to `--out` itself, several go to a folder each inside.

    Raises:
        InputError: as `request_of`; two limits are lists; or one saved plan has to serve several cases.
    """
    given = {f"budget_{name}": getattr(flags, f"budget_{name}") or (None,) for name in _LIMITS}
    lists = [f"--{name.replace('_', '-')}" for name, values in given.items() if len(values) > 1]
    if len(lists) > 1:
        hint = "one limit may be a list; the others hold for every case"
        raise InputError(f"{' and '.join(lists)} have several values each", hint=hint)
    requests = tuple(
        request_of(
            argparse.Namespace(
                **{
                    **vars(flags),
                    "target": target,
                    "targets": flags.target,
                    **dict(zip(given, values, strict=True)),
                }
            ),
            command,
        )
        for target in flags.target
        for values in itertools.product(*given.values())
    )
    if len(requests) == 1:
        return requests
    if requests[0].plan is not None:
        raise InputError("a saved plan is for one case", hint="with --apply, name one target and one budget")
    return tuple(replace(request, out=request.out / case_name(request)) for request in requests)


def case_name(request: Request) -> str:
    """The folder of a case: its target and every limit, `host-ms-0.5` or `iphone-iphone-12-macs-20M`."""
    limits = [(name, getattr(request.budget, name)) for name in _LIMITS]
    parts = [f"{name}-{_typed(value)}" for name, value in limits if value is not None]
    return "-".join([request.target.replace(":", "-"), *parts])


def _typed(value: float) -> str:
    """A limit as one would type it: `0.5`; whole amounts with the unit that leaves at most one decimal."""
    if isinstance(value, int):
        for unit, size in _UNITS:
            if value >= size and value * 10 % size == 0:
                return f"{value / size:.15g}{unit}"
    return f"{value:.15g}"
