"""Packed weights and files: back to the bit, no longer than entropy allows, damage is noticed."""

from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import InputError
from toolchain.store.container import Weight, restore, restore_file, store
from toolchain.store.huffman import BLOCK, LONGEST, code_lengths, codes_of, decode, encode
from toolchain.store.tensors import FAR, MOST, pack, unpack


def test_lengths_are_those_of_huffmans_own_tree():
    """Cormen et al., Introduction to Algorithms, figure 16.4: a 45, b 13, c 12, d 16, e 9, f 5."""
    assert code_lengths(np.array([45, 13, 12, 16, 9, 5])).tolist() == [1, 3, 3, 3, 4, 4]
    assert code_lengths(np.array([0, 7, 0])).tolist() == [0, 1, 0]
    assert code_lengths(np.array([], np.int64)).tolist() == []


def test_codes_are_prefix_free_and_canonical():
    lengths = code_lengths(np.array([45, 13, 12, 16, 9, 5]))
    written = [f"{code:0{n}b}" for code, n in zip(codes_of(lengths), lengths, strict=True)]
    assert written == ["0", "100", "101", "110", "1110", "1111"]


def test_codes_stay_short_where_counts_grow_like_fibonaccis():
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = code_lengths(np.array(counts))
    assert lengths.max() <= LONGEST
    assert sum(2.0 ** -int(n) for n in lengths) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=3 * BLOCK // 2), st.integers(1, 5))
def test_streams_come_back(values, spread):
    symbols = np.array(values, np.int64) // spread
    lengths = code_lengths(np.bincount(symbols) if len(symbols) else np.zeros(0, np.int64))
    bits, blocks = encode(symbols, lengths)
    np.testing.assert_array_equal(decode(bits, len(symbols), lengths, blocks), symbols)


def test_a_stream_is_within_a_bit_of_its_entropy():
    random = np.random.default_rng(0)
    symbols = random.choice(6, 20_000, p=[0.45, 0.13, 0.12, 0.16, 0.09, 0.05])
    shares = np.bincount(symbols) / len(symbols)
    entropy = -sum(p * log2(p) for p in shares)
    bits, _ = encode(symbols, code_lengths(np.bincount(symbols)))
    assert entropy <= 8 * len(bits) / len(symbols) < entropy + 0.1


def test_a_stream_that_is_cut_or_changed_is_noticed():
    symbols = np.arange(5000) % 7
    lengths = code_lengths(np.bincount(symbols))
    bits, blocks = encode(symbols, lengths)
    with pytest.raises(ValueError, match="cut short"):
        decode(bits[:-1], len(symbols), lengths, blocks)
    with pytest.raises(ValueError, match="end"):
        decode(bytes(b ^ 255 for b in bits), len(symbols), lengths, blocks)


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


RANDOM = np.random.default_rng(1)
WEIGHTS = {
    "dense palette": RANDOM.choice(RANDOM.standard_normal(16), (8, 4, 3, 3)),
    "sparse palette": RANDOM.choice(RANDOM.standard_normal(15), (200, 100))
    * (RANDOM.random((200, 100)) < 0.05)
    + 0.0,
    "wide gaps": np.where(np.arange(6000) % 1021 == 17, 0.5, 0).reshape(60, 100),
    "a gap of just that length": np.where(np.isin(np.arange(4 * FAR), [0, FAR, 2 * FAR + 1]), 3.0, 0)[None],
    "all zero": np.zeros((16, 16)),
    "one value": np.full((16, 16), 0.3),
    "minus zero, infinity, not a number": np.array([[-0.0, 0.0, np.inf, np.nan] * 40]),
    "a scale a channel": np.sign(RANDOM.standard_normal((32, 16, 3, 3)))
    * RANDOM.standard_normal((32, 1, 1, 1)),
    "sparse, of any value": RANDOM.standard_normal((100, 300)) * (RANDOM.random((100, 300)) < 0.05) + 0.0,
    "twelve bits": RANDOM.integers(-2048, 2048, (100, 400)) / 256,
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("axis", [0, -1])
def test_weights_come_back_to_the_bit(name, axis):
    weights = WEIGHTS[name].astype(np.float32)
    packed = pack(weights, axis=axis % weights.ndim, run=4)
    assert len(packed.payload) < weights.nbytes
    assert len(packed.payload) == sum(packed.entry["bytes"])
    assert same(unpack(packed.entry, packed.payload), weights)
    assert packed.zeros == (weights.view(np.uint32) == 0).sum()


def test_what_has_too_many_values_is_not_packed():
    assert pack(RANDOM.standard_normal((200, 200)).astype(np.float32)) is None
    assert MOST < 200 * 200


def test_zeros_cost_less_than_a_bit_where_most_are():
    weights = WEIGHTS["sparse palette"].astype(np.float32)
    assert 8 * len(pack(weights).payload) / weights.size < 0.6, "20,000 weights, 1,023 of 15 values"


def test_every_channel_gets_its_table_where_that_is_shorter():
    packed = pack(WEIGHTS["a scale a channel"].astype(np.float32))
    assert (packed.entry["axis"], packed.entry["run"], packed.entry["entries"]) == (0, 1, 2)
    assert 8 * len(packed.payload) / (32 * 16 * 9) < 1.7


def model(*arrays):
    """Bytes with arrays between them that a reader would take for anything."""
    noise = np.random.default_rng(5).bytes(50)
    return (
        b"".join(noise[i : i + 9] + np.ascontiguousarray(a).tobytes() for i, a in enumerate(arrays)) + noise
    )


def test_a_file_comes_back_to_the_bit_in_whatever_order_of_axes(tmp_path):
    first, second = (WEIGHTS[n].astype(np.float32) for n in ("dense palette", "sparse palette"))
    content = model(second.T, first.transpose(0, 2, 3, 1), RANDOM.standard_normal(100).astype(np.float32))
    found = store(content, (Weight(name="a", values=first), Weight(name="b", values=second)))
    assert set(found.layers) == {"a", "b"}
    assert found.layers["b"][0] == 20_000
    assert len(found.content) < len(content) / 15
    assert restore(found.content, "x") == content
    (tmp_path / "m.stored").write_bytes(found.content)
    said = restore_file(tmp_path / "m.stored", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == content
    assert said["bytes"] == len(content)


def test_equal_weights_in_two_places_are_both_packed():
    weights = WEIGHTS["dense palette"].astype(np.float32)
    content = model(weights, weights)
    found = store(content, (Weight(name="a", values=weights), Weight(name="b", values=weights)))
    assert set(found.layers) == {"a", "b"}
    assert restore(found.content, "x") == content


def test_weights_that_are_not_in_the_file_stay_out():
    weights = WEIGHTS["dense palette"].astype(np.float32)
    content = model(weights * 2)
    found = store(content, (Weight(name="a", values=weights),))
    assert found.layers == {}
    assert restore(found.content, "x") == content


def test_damage_is_noticed(tmp_path):
    weights = WEIGHTS["dense palette"].astype(np.float32)
    content = store(model(weights), (Weight(name="a", values=weights),)).content
    with pytest.raises(InputError, match="not a stored model"):
        restore(b"PK" + content, "x")
    for broken in (content[:-1], content[:20], content[:-1] + bytes([content[-1] ^ 1])):
        with pytest.raises(InputError, match="x is damaged"):
            restore(broken, "x")
    with pytest.raises(InputError, match="cannot read"):
        restore_file(tmp_path / "missing", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
