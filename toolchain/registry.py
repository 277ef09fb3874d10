"""Finds plug-ins by file name: `find("toolchain.prune.criteria", "CRITERION", "taylor")`.

`-` in a public name is `_` in the file's; a trailing `_` keeps a file from shadowing the standard library.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from typing import Any

from toolchain.errors import InputError


def names(package: str) -> tuple[str, ...]:
    """Public plug-in names of `package`, sorted, without importing any of them."""
    return tuple(sorted(_files(package)))


def find(package: str, constant: str, name: str, *, kind: str = "") -> Any:
    """The constant of plug-in `name`.

    Raises:
        InputError: no such plug-in; the hint names the nearest ones.
    """
    kind = kind or constant.lower()
    known = _files(package)
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(f"unknown {kind} '{name}'", hint=f"{hint}known: {', '.join(sorted(known))}")
    return getattr(importlib.import_module(f"{package}.{known[name]}"), constant)


def _files(package: str) -> dict[str, str]:
    """Public name -> module name of every plug-in file in `package`."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return {}
    found = pkgutil.iter_modules(list(spec.submodule_search_locations))
    return {m.name.rstrip("_").replace("_", "-"): m.name for m in found if not m.name.startswith("_")}
