"""Widths in proportion: the widest multiple under all limits."""

import pytest

from toolchain.prune.plan import Limit, Term
from toolchain.prune.proportion import scaled
from toolchain.prune.tables import Axis


def axis(name, size, step=1):
    levels = tuple(range(size, 0, -step))
    return Axis(name=name, levels=levels, damage=tuple(float(size - level) for level in levels))


def product(limit):
    term = Term(axes=("a", "b"), values=lambda counts: counts["a"] * counts["b"])
    return Limit(name="macs", limit=limit, terms=(term,))


AXES = (axis("a", 40), axis("b", 20))


def test_all_groups_keep_the_same_share():
    found = scaled(AXES, [product(200.0)], {"a": 40, "b": 20})
    assert found.feasible
    assert found.counts == {"a": 20, "b": 10}
    assert found.amounts == {"macs": 200.0}
    assert found.damage == 30.0


def test_no_larger_multiple_would_hold():
    found = scaled(AXES, [product(199.0)], {"a": 40, "b": 20})
    assert found.amounts["macs"] <= 199
    assert (found.counts["a"] + 1) * found.counts["b"] > 199 or found.counts["a"] * 2 > found.counts["b"] * 4


def test_a_share_between_two_levels_takes_the_nearer_one():
    found = scaled((axis("a", 16), axis("b", 64)), [product(14.0)], {"a": 16, "b": 64})
    assert found.counts == {"a": 2, "b": 7}, (
        "1.75 and 7 units: one of the first would leave half of the limit"
    )


def test_a_group_that_learned_to_be_narrow_stays_so():
    found = scaled(AXES, [product(200.0)], {"a": 10, "b": 20})
    assert found.counts == {"a": 10, "b": 20}
    wider = scaled(AXES, [product(400.0)], {"a": 10, "b": 20})
    assert wider.counts == {"a": 20, "b": 20}, "it grows with the others, which are whole already"


def test_levels_are_those_of_the_kernels():
    found = scaled((axis("a", 40, 8), axis("b", 20, 4)), [product(220.0)], {"a": 40, "b": 20})
    assert found.counts["a"] % 8 == 0
    assert found.counts["b"] % 4 == 0
    assert found.amounts["macs"] <= 220


def test_what_holds_whole_stays_whole_and_what_cannot_hold_says_so():
    assert scaled(AXES, [product(800.0)], {"a": 40, "b": 20}).counts == {"a": 40, "b": 20}
    impossible = scaled(AXES, [product(0.5)], {"a": 40, "b": 20})
    assert not impossible.feasible
    assert impossible.counts == {"a": 1, "b": 1}


@pytest.mark.parametrize("name", ["a", "b"])
def test_axes_without_a_proportion_stay_whole(name):
    found = scaled(AXES, [product(200.0)], {name: 40 if name == "a" else 20})
    other = "b" if name == "a" else "a"
    assert found.counts[other] == {"a": 40, "b": 20}[other]
    assert found.amounts["macs"] <= 200
