"""One tensor of few distinct values as tables, gaps and codes, and back to the same bits.

Given:  float32 [*shape]
Result: tables [groups, entries] of its values, and for every weight the number of its entry, Huffman coded;
        where that is shorter, zeros are left out and the gaps between the other weights coded instead

Groups are runs of indices along one axis, each with a table of its own: output channels with a scale each, or
several that share a palette. Whatever made the values alike, nothing is rounded here.
Source: Han et al., "Deep Compression", ICLR 2016, figure 2 (gaps), section 3 (tables), section 4 (Huffman).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolchain.store.huffman import BLOCK, code_lengths, decode, encode

MOST: Final = 1 << 14
"""Distinct values of a table: more have no code of 15 bits each."""
FAR: Final = 255
"""A gap of this stands for so many zeros with no weight behind them."""
Floats = NDArray[np.float32]
Ints = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """`entry` says how to read `payload`; both are described in docs/storage.md."""

    entry: Mapping[str, Any]
    payload: bytes
    values: int
    zeros: int


def pack(weights: Floats, *, axis: int = 0, run: int | None = None) -> Packed | None:
    """The shortest of the ways to write it: one table, one for every `run` indices along `axis`, or none.

    None where it has too many distinct values for a table, and too few zeros to be worth their gaps.
    """
    known = [_packed(weights, 0, weights.shape[0]), _sparse_only(weights)]
    for size in {1, run or 1}:
        if 0 < size < weights.shape[axis]:
            known.append(_packed(weights, axis, size))
    found = [p for p in known if p is not None and len(p.payload) < weights.nbytes]
    return min(found, key=lambda p: len(p.payload), default=None)


def _packed(weights: Floats, axis: int, run: int) -> Packed | None:
    """With one table for every `run` indices along `axis`."""
    rows = (
        np.ascontiguousarray(np.moveaxis(weights, axis, 0)).reshape(weights.shape[axis], -1).view(np.uint32)
    )
    found = _tables(rows, run)
    if found is None:
        return None
    table, codes = found
    zero = rows.reshape(-1) == 0
    streams = min([_written(codes)], _sparse(codes, zero), key=lambda parts: sum(map(len, parts)))
    with np.errstate(over="ignore"):
        halves = table.astype(np.float16)
    short = np.array_equal(halves.astype(np.float32).view(np.uint32), table.view(np.uint32))
    head = halves.astype("<f2").tobytes() if short else table.astype("<f4").tobytes()
    entry = {
        "shape": list(weights.shape),
        "axis": axis,
        "run": run,
        "entries": table.shape[1],
        "half": short,
        "gaps": len(streams) > 1,
        "bytes": [len(head), *map(len, streams)],
    }
    values = len(np.unique(table.view(np.uint32)))
    return Packed(entry=entry, payload=head + b"".join(streams), values=values, zeros=int(zero.sum()))


def _sparse_only(weights: Floats) -> Packed | None:
    """Gaps, and the weights between them as they are; None where there is no zero."""
    flat = np.ascontiguousarray(weights).reshape(-1).view(np.uint32)
    zero = flat == 0
    if not zero.any():
        return None
    gaps, _ = _sparse(np.zeros(len(flat), np.int64), zero)
    rest = flat[~zero].astype("<u4").tobytes()
    entry = {"shape": list(weights.shape), "axis": 0, "run": weights.shape[0], "entries": 0, "gaps": True}
    values = len(np.unique(flat))
    return Packed(
        entry={**entry, "half": False, "bytes": [len(rest), len(gaps)]},
        payload=rest + gaps,
        values=values,
        zeros=int(zero.sum()),
    )


def _tables(rows: Ints, run: int) -> tuple[Floats, Ints] | None:
    """The values of every `run` rows [groups, entries] and each weight's number among them [n]."""
    tables, codes = [], np.empty(rows.shape, np.int64)
    for start in range(0, len(rows), run):
        some = rows[start : start + run]
        if len(np.unique(some.reshape(-1)[: 4 * MOST])) > MOST:  # seen without sorting all of it
            return None
        table, numbers = np.unique(some, return_inverse=True)
        if len(table) > MOST:
            return None
        tables.append(table)
        codes[start : start + run] = numbers.reshape(some.shape)
    entries = max(map(len, tables))
    if len(tables) > 1 and len(tables) * entries > rows.size // 2:
        return None  # the tables alone would be half of it
    padded = np.stack([np.pad(t, (0, entries - len(t)), mode="edge") for t in tables])
    return padded.view(np.float32), codes.reshape(-1)


def unpack(entry: Mapping[str, Any], payload: bytes) -> Floats:
    """The weights, bit for bit.

    Raises:
        ValueError, KeyError, IndexError, TypeError: entry and payload do not belong together.
    """
    shape, axis, run = tuple(entry["shape"]), int(entry["axis"]), int(entry["run"])
    parts, at = [], 0
    for size in entry["bytes"]:
        parts.append(payload[at : at + size])
        at += size
    table = np.frombuffer(parts[0], "<f2" if entry["half"] else "<f4").astype(np.float32)
    if not entry["entries"]:
        flat = np.zeros(prod(shape), np.float32)
        flat[_places(_read(parts[1]), prod(shape))] = table
        return flat.reshape(shape)
    table = table.reshape(-1, int(entry["entries"]))
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    owners = np.repeat(np.arange(shape[axis]) // run, prod(moved[1:]))
    if entry["gaps"]:
        places, codes = _places(_read(parts[1]), prod(shape)), _read(parts[2])
        flat = np.zeros(prod(shape), np.float32)
        flat[places] = table[owners[places], codes]
    else:
        flat = table[owners, _read(parts[1])]
    return np.ascontiguousarray(np.moveaxis(flat.reshape(moved), 0, axis))


def _sparse(codes: Ints, zero: Ints) -> list[bytes]:
    """Gaps between the weights that are not zero, and their codes."""
    places = np.flatnonzero(~zero)
    between = np.diff(places, prepend=-1) - 1
    fillers = between // FAR
    gaps = np.full(len(places) + int(fillers.sum()), FAR)
    gaps[np.arange(len(places)) + np.cumsum(fillers)] = between % FAR
    return [_written(gaps), _written(codes[places])]


def _places(gaps: Ints, size: int) -> Ints:
    """The positions of the weights that are not zero."""
    steps = gaps.astype(np.int64) + (gaps != FAR)
    found: Ints = (np.cumsum(steps) - 1)[gaps != FAR]
    if len(found) and int(found[-1]) >= size:
        raise ValueError("a gap leads past the end")
    return found


def _written(symbols: Ints) -> bytes:
    """A stream: how many symbols, how many kinds, lengths of codes, bits of blocks, bits."""
    counts = np.bincount(symbols) if len(symbols) else np.zeros(0, np.int64)
    lengths = code_lengths(counts)
    bits, blocks = encode(symbols, lengths)
    even = np.append(lengths, np.zeros(len(lengths) % 2, np.uint8))
    nibbles = (even[::2] << 4 | even[1::2]).astype(np.uint8)
    head = np.array([len(symbols), len(lengths)], "<u4")
    return b"".join([head.tobytes(), nibbles.tobytes(), blocks.astype("<u2").tobytes(), bits])


def _read(stream: bytes) -> Ints:
    """The symbols of a stream."""
    count, kinds = (int(n) for n in np.frombuffer(stream[:8], "<u4"))
    start = 8 + (kinds + 1) // 2
    nibbles = np.frombuffer(stream[8:start], np.uint8)
    lengths = np.stack([nibbles >> 4, nibbles & 15], 1).reshape(-1)[:kinds]
    end = start + 2 * -(-count // BLOCK)
    return decode(stream[end:], count, lengths, np.frombuffer(stream[start:end], "<u2"))
