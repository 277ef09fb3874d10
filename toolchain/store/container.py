"""A model file with its weights packed, which unpacks to the very same file.

Given:  the bytes of an ONNX or TFLite file, and the weights that are somewhere in it
Result: magic, header, the file without these weights (deflated), the weights as `tensors` packs them

Nothing is known here of either format: a weight is found by its bytes, in whatever order of axes the
converter wrote it. What is not found, or has too many distinct values, stays in the file. docs/storage.md has
the layout.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from toolchain.artifacts import place
from toolchain.errors import InputError
from toolchain.store.tensors import Floats, Packed, pack, unpack

MAGIC: Final = b"EDGEFIT1"
SMALLEST: Final = 64
"""Weights with fewer elements stay where they are: describing them costs what is won."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A layer's weights; `run` output channels, along `axis`, may share a table."""

    name: str
    values: Floats
    axis: int = 0
    run: int | None = None


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A packed file, and for each weight found in it: [weights, values, zeros, bytes]."""

    content: bytes
    layers: Mapping[str, tuple[int, int, int, int]]


@dataclass(frozen=True, kw_only=True)
class _Place:
    weight: Weight
    at: int
    values: Floats
    axis: int


def store(model: bytes, weights: tuple[Weight, ...]) -> Stored:
    """The model file with `weights` packed."""
    tensors: list[dict[str, Any]] = []
    payloads: list[bytes] = []
    layers: dict[str, tuple[int, int, int, int]] = {}
    rest, end = [], 0
    for found in _places(model, weights):
        packed = pack(found.values, axis=found.axis, run=found.weight.run)
        if packed is None:
            continue
        tensors.append({"at": found.at, **packed.entry})
        payloads.append(packed.payload)
        layers[found.weight.name] = _row(found, packed)
        rest.append(model[end : found.at])
        end = found.at + found.values.nbytes
    skeleton = zlib.compress(b"".join([*rest, model[end:]]), 9)
    header = {
        "size": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
        "rest": len(skeleton),
        "tensors": tensors,
    }
    head = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    parts = [MAGIC, len(head).to_bytes(4, "little"), head, skeleton, *payloads]
    return Stored(content=b"".join(parts), layers=layers)


def restore(content: bytes, what: str) -> bytes:
    """The model file, to the bit; `what` names it in errors.

    Raises:
        InputError: not a stored file, or damaged.
    """
    if content[:8] != MAGIC:
        raise InputError(f"{what} is not a stored model", hint="name a .stored file of edgefit")
    try:
        model, wanted = _restored(content)
    except (ValueError, KeyError, IndexError, TypeError, zlib.error) as error:
        raise InputError(f"{what} is damaged: {error}", hint="get it anew") from error
    if hashlib.sha256(model).hexdigest() != wanted:
        raise InputError(f"{what} is damaged: the content has another hash", hint="get it anew")
    return model


def restore_file(source: Path, path: Path) -> dict[str, Any]:
    """Write the model file that `source` holds, whole or not at all, and say what it is.

    Raises:
        InputError: not a stored file, damaged, or the disk refuses.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}", hint="name a .stored file") from error
    model = restore(content, str(source))
    place(path, lambda partial: partial.write_bytes(model))
    return {
        "stored": str(source),
        "stored_bytes": len(content),
        "written": str(path),
        "bytes": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
    }


def _restored(content: bytes) -> tuple[bytes, str]:
    start = 12 + int.from_bytes(content[8:12], "little")
    header = json.loads(zlib.decompress(content[12:start]))
    at, size = start + int(header["rest"]), int(header["size"])
    tensors = header["tensors"]
    packed = 4 * sum(int(np.prod(entry["shape"], dtype=np.int64)) for entry in tensors)
    rest = zlib.decompressobj().decompress(content[start:at], max(1, size - packed))
    parts, done, taken = [], 0, 0
    for entry in tensors:
        between = int(entry["at"]) - done
        length = sum(entry["bytes"])
        values = unpack(entry, content[at : at + length]).astype("<f4").tobytes()
        parts += [rest[taken : taken + between], values]
        at, taken, done = at + length, taken + between, int(entry["at"]) + len(values)
    return b"".join([*parts, rest[taken:]]), str(header["sha256"])


def _places(model: bytes, weights: tuple[Weight, ...]) -> list[_Place]:
    """Where each weight is in the file, in the file's order; overlapping finds are left out."""
    taken: list[tuple[int, int]] = []
    found = []
    for weight in sorted(weights, key=lambda w: -w.values.size):
        if weight.values.size < SMALLEST:
            continue
        there = _place(model, weight, taken)
        if there is not None:
            taken.append((there.at, there.at + there.values.nbytes))
            found.append(there)
    return sorted(found, key=lambda place: place.at)


def _place(model: bytes, weight: Weight, taken: list[tuple[int, int]]) -> _Place | None:
    """The first place where it is in some order of axes, and nothing else is yet."""
    tried = set()
    for order in itertools.permutations(range(weight.values.ndim)):
        values = np.ascontiguousarray(weight.values.transpose(order), dtype="<f4")
        needle = values.tobytes()
        key = hashlib.sha256(needle).digest()
        if key in tried:
            continue
        tried.add(key)
        at = model.find(needle)
        while at >= 0 and any(start < at + len(needle) and at < end for start, end in taken):
            at = model.find(needle, at + 1)
        if at >= 0:
            return _Place(weight=weight, at=at, values=values, axis=order.index(weight.axis))
    return None


def _row(place: _Place, packed: Packed) -> tuple[int, int, int, int]:
    return place.values.size, packed.values, packed.zeros, len(packed.payload)
