"""Which operators of an int8 file stay in float."""

import pytest

from toolchain.float_parts import Operator, float_operators


def _graph(*lines):
    """`kind: reads -> write` as operators."""
    operators = []
    for line in lines:
        kind, rest = line.split(":")
        reads, write = rest.split("->")
        operators.append(Operator(kind=kind, reads=tuple(reads.split()), writes=(write.strip(),)))
    return operators


def _kept(lines, given=()):
    operators = _graph(*lines)
    return {operators[number].writes[0] for number in float_operators(operators, frozenset(given))}


NORMALIZATION = (
    "RESHAPE: x -> flat",
    "MEAN: flat axis -> mean",
    "SQUARED_DIFFERENCE: flat mean -> apart",
    "MEAN: apart axis -> variance",
    "ADD: variance eps -> safe",
    "RSQRT: safe -> factor",
    "MUL: flat factor -> large",
    "MUL: mean factor -> shift",
    "SUB: large shift -> normal",
    "RESHAPE: normal -> back",
    "MUL: back gamma -> scaled",
    "ADD: scaled beta -> y",
)
GIVEN = ("axis", "eps", "gamma", "beta", "w")


def test_a_normalization_taken_apart_stays_whole():
    lines = ("FULLY_CONNECTED: image w -> x", *NORMALIZATION, "FULLY_CONNECTED: y w -> z")
    wanted = {
        "mean",
        "apart",
        "variance",
        "safe",
        "factor",
        "large",
        "shift",
        "normal",
        "back",
        "scaled",
        "y",
    }
    assert _kept(lines, GIVEN) == wanted  # the first reshape moves int8 at the edge


def test_the_sum_of_a_shortcut_stays_with_the_normalization_that_reads_it():
    lines = (
        "FULLY_CONNECTED: image w -> a",
        "FULLY_CONNECTED: a w -> b",
        "ADD: a b -> x",
        *NORMALIZATION,
        "FULLY_CONNECTED: y w -> z",
        "ADD: x z -> out",
    )
    kept = _kept(lines, GIVEN)
    assert {"x", "flat", "out"} <= kept
    assert not {"a", "b", "z"} & kept


def test_attention_keeps_scale_mask_and_softmax_but_not_its_products():
    lines = (
        "BatchMatMul: q k -> scores",
        "Mul: scores scale -> scaled",
        "Add: scaled mask -> masked",
        "Softmax: masked -> seen",
        "Reshape: seen shape -> rows",
        "BatchMatMul: rows v -> out",
    )
    assert _kept(lines, ("scale", "mask", "shape")) == {"scaled", "masked", "seen"}


@pytest.mark.parametrize("kind", ["LayerNormalization", "InstanceNormalization", "LAYER_NORMALIZATION"])
def test_a_normalization_of_one_operator(kind):
    assert _kept(("Conv: x w -> a", f"{kind}: a gamma beta -> b", "Conv: b w -> c"), GIVEN) == {"b"}


def test_a_convolutional_network_is_in_integers_throughout():
    lines = (
        "CONV_2D: image w -> a",
        "CONV_2D: a w -> b",
        "ADD: a b -> c",
        "MEAN: c axis -> d",
        "FULLY_CONNECTED: d w -> e",
        "LOGISTIC: e -> f",
        "MUL: c f -> g",
    )
    assert _kept(lines, GIVEN) == set()


def test_a_stored_tensor_connects_nothing():
    """Two normalizations share their epsilon; what lies beside one is not drawn in by the other."""
    lines = ("ADD: a eps -> b", "RSQRT: b -> c", "CONV_2D: c w -> d", "ADD: d eps -> e")
    assert _kept(lines, ("eps", "w")) == {"b", "c"}
