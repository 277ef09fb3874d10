"""Pickles without running them: which names they import, and which of these may be resolved.

Allowed beyond what torch itself allows for weights: classes of `torch.nn` and of the installed zoos
`torchvision` and `timm` that derive from nn.Module, and functions of `torch.nn.functional`. A name of a zoo
is resolved by importing the zoo's own module, which runs installed code only, never code from the file.
"""

from __future__ import annotations

import importlib
import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from toolchain.errors import InputError

_ZOOS: Final = ("torchvision", "timm")
_NEEDED: Final = frozenset({"builtins.set", "__builtin__.set", "collections.OrderedDict"})
_TORCH_OWN: Final = (
    "torch._utils._rebuild_",
    "torch.storage.",
    "torch.serialization._get_layout",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.",
    "torch._tensor._rebuild_from_type_v2",
)
_TRUST: Final = "only if you trust the file: --trust-pickle; else save the network with torch.export.save"


def load_pickle(path: Path, *, trust: bool) -> Any:
    """The object in a torch.save file, built from allowed classes only unless `trust`.

    Raises:
        InputError: foreign classes (named), or the file is damaged.
    """
    names = imported_names(path.read_bytes(), str(path))
    allowed = {name: found for name in names if (found := _resolved(name)) is not None}
    foreign = [name for name in names if name not in allowed and not _is_torch_own(name)]
    if foreign and not trust:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise InputError(
            f"{path} is a pickle that names foreign code: {', '.join(foreign[:5])}{more}", hint=_TRUST
        )
    try:
        if trust:
            return torch.load(path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals([(found, name) for name, found in allowed.items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        told = str(error).partition("WeightsUnpickler error:")[2].strip() or str(error)
        reason = told.splitlines()[0][:160]
        raise InputError(f"{path} cannot be unpickled safely: {reason}", hint=_TRUST) from error
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{path} needs code that is not here: {error}", hint="install the package"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: {str(error).splitlines()[0][:160]}", hint="save it again"
        ) from error


def imported_names(content: bytes, where: str) -> list[str]:
    """Every `module.name` that the pickles in `content` (torch.save, old or new) would import, sorted.

    Raises:
        InputError: the file is damaged.
    """
    found: set[str] = set()
    try:
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    if name.endswith(".pkl"):
                        found.update(_names(archive.read(name)))
        else:
            found.update(_names(content))
    except (zipfile.BadZipFile, ValueError, EOFError, IndexError, KeyError) as error:
        raise InputError(
            f"{where} is a truncated or damaged pickle", hint="write or download it again"
        ) from error
    return sorted(found)


def foreign_to_weights(content: bytes, where: str) -> list[str]:
    """Names in `content` beyond what plain tensors need."""
    return [n for n in imported_names(content, where) if n not in _NEEDED and not _is_torch_own(n)]


def _names(content: bytes) -> Iterator[str]:
    """Operands of GLOBAL, INST and STACK_GLOBAL; old torch files hold several pickles, then raw bytes."""
    stream = io.BytesIO(content)
    legacy = (
        not content.startswith(b"PK")
        and content[:2] == b"\x80\x02"
        and b"\x8a\nl\xfc\x9cF\xf9" in content[:20]
    )
    for _ in range(5 if legacy else 1):
        strings: list[str] = []
        memo: dict[int, str] = {}
        for code, argument, _position in pickletools.genops(stream):
            if code.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif code.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:]) if len(strings) > 1 else "an unreadable name"
            elif code.name in ("BINGET", "LONG_BINGET", "GET"):
                strings.append(memo.get(int(str(argument)), "?"))
            elif code.name == "MEMOIZE":
                memo[len(memo)] = strings[-1] if strings else "?"
            elif code.name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[int(str(argument))] = strings[-1] if strings else "?"
            elif isinstance(argument, str):
                strings.append(argument)


def _is_torch_own(name: str) -> bool:
    if name in _NEEDED or name.startswith(_TORCH_OWN):
        return True
    known = torch.serialization._weights_only_unpickler._get_allowed_globals()  # type: ignore[attr-defined]
    return name in known


def _resolved(name: str) -> Any | None:
    """The allowed class or function called `name`; None for anything else."""
    module_name, _, attribute = name.rpartition(".")
    package = module_name.partition(".")[0]
    if not (module_name.startswith("torch.nn.") or package in _ZOOS):
        return None
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except (ImportError, RuntimeError, AttributeError):
        return None
    if isinstance(found, type) and issubclass(found, nn.Module):
        own = found.__module__.partition(".")[0]
        return found if own == package else None
    function = module_name == "torch.nn.functional" and callable(found) and not attribute.startswith("_")
    return found if function else None
