"""Finds plug-ins by file name: `find("toolchain.prune.criteria", "CRITERION", "taylor")`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from typing import Any

from toolchain.errors import InputError


def names(package: str) -> tuple[str, ...]:
    """Public plug-in names of `package`, sorted, without importing any of them."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return ()
    found = pkgutil.iter_modules(list(spec.submodule_search_locations))
    return tuple(sorted(m.name.replace("_", "-") for m in found if not m.name.startswith("_")))


def find(package: str, constant: str, name: str, *, kind: str = "") -> Any:
    """The constant of plug-in `name`.

    Raises:
        InputError: no such plug-in; the hint names the nearest ones.
    """
    kind = kind or constant.lower()
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(f"unknown {kind} '{name}'", hint=f"{hint}known: {', '.join(known)}")
    module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
    return getattr(module, constant)
