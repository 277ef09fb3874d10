"""Canonical Huffman codes of at most 15 bits, decoded many blocks at a time.

A stream is cut into blocks of 1024 symbols whose lengths in bits are kept beside it, so that numpy can walk
through all blocks in step. docs/storage.md says what a decoder in another language has to know.
Source: Huffman, "A Method for the Construction of Minimum-Redundancy Codes", 1952; the limit of the lengths
by flattening the counts, as gzip's predecessors did.
"""

from __future__ import annotations

import heapq
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LONGEST: Final = 15
"""Bits of the longest code: a length fits 4 bits, 1024 codes fit 16."""
BLOCK: Final = 1024
Ints = NDArray[Any]


def code_lengths(counts: Ints) -> Ints:
    """Bits of each symbol's code [symbols]; 0 for symbols that do not occur, 1 for the only one."""
    weights = [int(n) for n in counts]
    while True:
        found = _lengths(weights)
        if int(found.max(initial=0)) <= LONGEST:
            return found
        weights = [(n + 1) // 2 for n in weights]


def _lengths(weights: list[int]) -> Ints:
    """The lengths of an optimal code."""
    found = np.zeros(len(weights), np.uint8)
    tree = [(n, s) for s, n in enumerate(weights) if n]
    if len(tree) == 1:
        found[tree[0][1]] = 1
        return found
    heapq.heapify(tree)
    parents: dict[int, int] = {}
    name = len(weights)
    while len(tree) > 1:
        (first, a), (second, b) = heapq.heappop(tree), heapq.heappop(tree)
        parents[a] = parents[b] = name
        heapq.heappush(tree, (first + second, name))
        name += 1
    depth = {name - 1: 0}
    for node in sorted(parents, reverse=True):  # parents have higher numbers than what is below them
        depth[node] = depth[parents[node]] + 1
    for symbol, n in enumerate(weights):
        if n:
            found[symbol] = min(depth[symbol], 255)
    return found


def codes_of(lengths: Ints) -> Ints:
    """The canonical codes [symbols]: ascending with the length, then with the symbol."""
    codes = np.zeros(len(lengths), np.uint32)
    code, last = 0, 0
    for symbol in sorted(np.flatnonzero(lengths).tolist(), key=lambda s: (int(lengths[s]), s)):
        code <<= int(lengths[symbol]) - last
        codes[symbol], last = code, int(lengths[symbol])
        code += 1
    return codes


def encode(symbols: Ints, lengths: Ints) -> tuple[bytes, Ints]:
    """The symbols [n] as bits, first bit highest, and the bits of each block [blocks]."""
    widths, codes = lengths[symbols].astype(np.int64), codes_of(lengths)[symbols]
    starts = np.cumsum(widths) - widths
    bits = np.zeros(int(widths.sum()), np.uint8)
    for place in range(int(widths.max(initial=0))):
        some = widths > place
        bits[starts[some] + place] = (codes[some] >> (widths[some] - 1 - place).astype(np.uint32)) & 1
    edges = np.append(starts[::BLOCK], len(bits))
    return np.packbits(bits).tobytes(), np.diff(edges).astype(np.uint16)


def decode(data: bytes, count: int, lengths: Ints, blocks: Ints) -> Ints:
    """The `count` symbols of a stream.

    Raises:
        ValueError: the bits are no such stream.
    """
    symbol_of, width_of = _table(lengths)
    padded = np.frombuffer(data + bytes(4), np.uint8).astype(np.uint32)
    ends = np.cumsum(blocks.astype(np.int64))
    if len(blocks) != -(-count // BLOCK) or (len(ends) and -(-int(ends[-1]) // 8) != len(data)):
        raise ValueError("a stream is cut short")
    at = ends - blocks
    found = np.empty((len(blocks), BLOCK), np.uint16)
    size = np.full(len(blocks), BLOCK)
    if len(size):
        size[-1] = count - BLOCK * (len(blocks) - 1)
    for place in range(min(BLOCK, count)):
        byte = np.minimum(at >> 3, len(padded) - 4)
        window = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
        seen = window >> (24 - LONGEST - (at & 7)).astype(np.uint32) & (1 << LONGEST) - 1
        found[:, place] = symbol_of[seen]
        at = at + np.where(place < size, width_of[seen], 0)
    if not np.array_equal(at, ends):
        raise ValueError("a stream does not end where it should")
    return found.reshape(-1)[:count]


def _table(lengths: Ints) -> tuple[Ints, Ints]:
    """For every 15 bits that may come next: the symbol they begin with, and the length of its code."""
    symbols, widths = np.zeros(1 << LONGEST, np.uint16), np.zeros(1 << LONGEST, np.int64)
    codes = codes_of(lengths)
    for symbol in np.flatnonzero(lengths).tolist():
        free = LONGEST - int(lengths[symbol])
        first = int(codes[symbol]) << free
        symbols[first : first + (1 << free)] = symbol
        widths[first : first + (1 << free)] = lengths[symbol]
    return symbols, widths
