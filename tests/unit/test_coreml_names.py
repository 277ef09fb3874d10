"""coremltools numbers operators in an order of its own; packages must not show it."""

import pytest

from toolchain.coreml_package import _renumber

pytest.importorskip("coremltools")


def block(*operations):
    from coremltools.proto import MIL_pb2

    made = MIL_pb2.Block()
    for kind, name in operations:
        operation = made.operations.add(type=kind)
        operation.attributes["name"].immediateValue.tensor.strings.values.append(name)
    return made


def names(made):
    return [o.attributes["name"].immediateValue.tensor.strings.values[0] for o in made.operations]


def test_numbers_follow_the_order_of_the_operators():
    one = block(
        ("cast", "cast_4"), ("conv", "features.0"), ("linear", "linear_1_cast_fp16"), ("cast", "cast_0")
    )
    other = block(
        ("cast", "cast_1"), ("conv", "features.0"), ("linear", "linear_0_cast_fp16"), ("cast", "cast_3")
    )
    _renumber(one)
    _renumber(other)
    assert names(one) == names(other) == ["cast_0", "features.0", "linear_0_cast_fp16", "cast_1"]


def test_an_operator_without_a_name_stays():
    from coremltools.proto import MIL_pb2

    made = MIL_pb2.Block()
    made.operations.add(type="relu")
    _renumber(made)
    assert "name" not in made.operations[0].attributes
