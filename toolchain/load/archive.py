"""torch.export archives. Reading one may unpickle, evaluate text and load native code: checked first.

torch.export.load falls back from weights_only to full unpickling for sample inputs and constants, hands size
expressions to sympy (which evaluates them), resolves operator names by attribute, and loads compiled models.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from toolchain.errors import InputError
from toolchain.load.pickles import foreign_to_weights

_EXPRESSION: Final = re.compile(r"[A-Za-z0-9_ ()+\-*/,.<>=&|~!%]*")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYMBOL: Final = re.compile(r"[suzf]\d+|_\w*\d+")
_QUOTED: Final = re.compile(r"'([suzf]\d+)'")
_FUNCTIONS: Final = frozenset(
    {"Max", "Min", "FloorDiv", "CeilDiv", "CleanDiv", "Mod", "PythonMod", "ModularIndexing", "Eq", "Ne", "Lt"}
    | {"Le", "Gt", "Ge", "And", "Or", "Not", "TruncToInt", "FloorToInt", "CeilToInt", "RoundToInt", "Where"}
    | {"IntTrueDiv", "FloatTrueDiv", "ToFloat", "PowByNatural", "FloatPow", "Identity", "Piecewise", "floor"}
    | {"ceiling", "Abs", "Pow", "True", "False", "oo", "int_oo", "Integer", "Float", "Symbol", "integer"}
    | {"positive", "nonnegative", "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan"}
    | {"Add", "Mul"}
)
_OPERATOR: Final = re.compile(
    r"torch\.ops(\.\w+)+|_operator\.\w+|math\.\w+|torch\.(_)?sym_\w+|#.*|torch\.\w*\.?_?sym_\w+"
)
_TRUST: Final = "only if you trust the file: --trust-pickle; else export the network again with tensors only"


def load_archive(path: Path, *, trust: bool) -> ExportedProgram:
    """The exported program, after a look at everything in the file that could run.

    Raises:
        InputError: the archive is damaged, or holds pickled objects, code or expressions beyond tensors.
    """
    if not trust:
        _refuse_code(path)
    try:
        return torch.export.load(path)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(
            f"{path} cannot be read as a torch.export archive: {reason}",
            hint=f"export it again with torch {torch.__version__.split('+')[0]}",
        ) from error


def _refuse_code(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise InputError(f"{path} is damaged ({damaged})", hint="write or download it again")
            contents = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} is a truncated or damaged archive", hint="write or download it again"
        ) from error
    raw: set[str] = set()
    pickled: set[str] = set()
    for name, content in contents.items():
        if "/aotinductor/" in name or name.endswith((".so", ".dll", ".dylib")):
            raise InputError(
                f"{path} holds native code ({name})", hint="give the torch.export archive without it"
            )
        if name.endswith(".json"):
            _inspect(path, name, content, raw, pickled)
    for name, content in contents.items():
        leaf = name.rpartition("/")[2]
        if leaf.startswith(("opaque_obj", "custom_obj")):
            raise InputError(f"{path} holds a pickled object ({name})", hint=_TRUST)
        if name.endswith(".json") or (leaf in raw and leaf not in pickled) or not content:
            continue
        if content.startswith((b"PK", b"\x80")):
            foreign = foreign_to_weights(content, f"{path}: {name}")
            if foreign:
                listed = ", ".join(foreign[:5])
                raise InputError(f"{path} holds a pickle that names foreign code: {listed}", hint=_TRUST)


def _inspect(path: Path, name: str, content: bytes, raw: set[str], pickled: set[str]) -> None:
    """Payloads go into `raw` or `pickled`; expressions and operator names must be what torch writes."""
    try:
        root = json.loads(content)
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({name} is no JSON)", hint="write or download it again"
        ) from error
    for entry in _objects(root):
        if "path_name" in entry:
            (pickled if entry.get("use_pickle") else raw).add(str(entry["path_name"]).rpartition("/")[2])
        expression = entry.get("expr_str")
        if isinstance(expression, str) and not _is_size(expression):
            raise InputError(f"{path} holds code in a size expression: {expression[:80]}", hint=_TRUST)
        target = entry.get("target")
        if isinstance(target, str) and "inputs" in entry and not _OPERATOR.fullmatch(target):
            raise InputError(f"{path} calls '{target[:80]}', which is no operator", hint=_TRUST)


def _is_size(expression: str) -> bool:
    expression = _QUOTED.sub(r"\1", expression)
    words = _WORD.findall(expression)
    known = all(word in _FUNCTIONS or _SYMBOL.fullmatch(word) for word in words)
    return known and "__" not in expression and _EXPRESSION.fullmatch(expression) is not None


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item)
