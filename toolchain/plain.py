"""Values to plain JSON-able data and back, by their type annotations."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: object) -> Any:
    """Dataclasses become mappings, tuples lists, paths strings; numbers, text and None stay."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: type[T], data: Any) -> T:
    """The value of type `kind` that `to_plain` turned into `data`.

    Raises:
        ValueError: `data` does not have the shape of `kind` (the message names the place).
    """
    result: T = _restore(kind, data, kind.__name__)
    return result


def _restore(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        return _restore(next(a for a in arguments if a is not type(None)), data, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _restore_dataclass(kind, data, where)
    if origin is tuple:
        _expect(isinstance(data, list), "a list", where)
        return tuple(_restore(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        _expect(isinstance(data, dict), "an object", where)
        return {k: _restore(arguments[1], v, f"{where}.{k}") for k, v in data.items()}
    if kind is Path:
        return Path(data)
    if kind is float:
        _expect(isinstance(data, int | float) and not isinstance(data, bool), "a number", where)
        return float(data)
    if kind in (int, str, bool):
        _expect(isinstance(data, kind), kind.__name__, where)
    elif arguments:
        _expect(data in arguments, f"one of {', '.join(map(str, arguments))}", where)
    return data


def _restore_dataclass(kind: type, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), "an object", where)
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    _expect(set(data) <= known, f"only the fields {', '.join(sorted(known))}", where)
    try:
        return kind(**{k: _restore(hints[k], v, f"{where}.{k}") for k, v in data.items()})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _expect(condition: bool, wanted: str, where: str) -> None:
    if not condition:
        raise ValueError(f"{where}: expected {wanted}")
