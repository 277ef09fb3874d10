"""The budget solver on problems whose answer is known."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import InputError
from toolchain.prune.plan import Axis, Limit, kept_units, levels, solve, width_axis
from toolchain.prune.planfile import check_plan, plan_text, read_plan
from toolchain.values import Channels, Cost, Estimate, Group, Member, PrunePlan


def channels(*sizes: int) -> Channels:
    groups = tuple(
        Group(
            name=f"g{i}",
            size=n,
            members=(Member(parameter=f"g{i}.weight", dim=0, index=tuple((u,) for u in range(n))),),
        )
        for i, n in enumerate(sizes)
    )
    return Channels(groups=groups, frozen=())


def axes(scores):
    return [width_axis(g, scores[g.name], 1) for g in channels(*(len(v) for v in scores.values())).groups]


def total(counts):
    return float(sum(counts.values()))


def test_levels_are_aligned_and_end_at_the_floor():
    assert levels(channels(64).groups[0], 16, 0.2) == (64, 48, 32, 16)
    assert levels(channels(20).groups[0], 8, 0.1) == (20, 16, 8)
    assert levels(channels(6).groups[0], 8, 0.1) == (6, 4, 2)
    assert levels(channels(1).groups[0], 8, 0.1) == (1,)


def test_the_cheapest_units_go_first():
    scores = {"g0": (5.0, 0.1, 4.0, 0.2), "g1": (9.0, 9.0, 9.0, 9.0)}
    found = solve(axes(scores), [Limit(name="n", limit=6, amount=total)])
    assert found.feasible
    assert found.counts == {"g0": 2, "g1": 4}
    assert kept_units(scores, found.counts) == {"g0": (0, 2)}
    assert found.damage == pytest.approx(0.3)


def test_a_staircase_is_crossed():
    # Latency that only falls every four units: a step of one unit gains nothing and must not stop the solver.
    def stairs(counts):
        return float(sum(-(-n // 4) for n in counts.values()))

    found = solve(axes({"g0": tuple(range(1, 17))}), [Limit(name="ms", limit=2, amount=stairs)])
    assert found.feasible
    assert found.counts == {"g0": 8}


def test_a_block_goes_when_it_is_the_cheaper_way():
    block = Axis(name="block", levels=(1, 0), damage=(0.0, 0.5))
    width = width_axis(channels(4).groups[0], (1.0, 1.0, 1.0, 1.0), 1)

    def amount(counts):
        return float(counts["g0"] + 4 * counts["block"])

    found = solve([width, block], [Limit(name="n", limit=5, amount=amount)])
    assert found.counts == {"g0": 4, "block": 0}
    assert kept_units({"g0": (1.0,) * 4}, found.counts) == {}


def test_what_costs_nothing_is_given_back():
    # The block's own width no longer counts once the block is gone: it must come back whole.
    block = Axis(name="block", levels=(1, 0), damage=(0.0, 3.5))
    width = width_axis(channels(4).groups[0], (1.0, 1.0, 1.0, 1.0), 1)
    found = solve([width, block], [Limit(name="n", limit=0.5, amount=lambda c: float(c["g0"] * c["block"]))])
    assert found.counts == {"g0": 4, "block": 0}


def test_an_impossible_limit_is_said_to_be_so():
    found = solve(axes({"g0": (1.0,) * 8}), [Limit(name="n", limit=0.5, amount=total)])
    assert not found.feasible
    assert found.counts == {"g0": 1}


def test_all_limits_hold_together():
    limits = [
        Limit(name="a", limit=10, amount=lambda c: float(c["g0"] + c["g1"])),
        Limit(name="b", limit=40, amount=lambda c: float(c["g0"] * c["g1"])),
    ]
    found = solve(axes({"g0": tuple(range(12)), "g1": tuple(range(12))}), limits)
    assert found.feasible
    assert all(limit.amount(found.counts) <= limit.limit for limit in limits)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_near_the_optimum_found_by_enumeration(data):
    sizes = data.draw(st.lists(st.integers(2, 5), min_size=2, max_size=3))
    scores = {
        f"g{i}": tuple(data.draw(st.lists(st.floats(0.01, 1), min_size=n, max_size=n)))
        for i, n in enumerate(sizes)
    }
    weights = data.draw(st.lists(st.floats(0.5, 2), min_size=len(sizes), max_size=len(sizes)))

    def amount(counts):
        return sum(w * counts[f"g{i}"] for i, w in enumerate(weights))

    limit = data.draw(st.floats(0.4, 0.9)) * sum(w * n for w, n in zip(weights, sizes, strict=True))
    found = solve(axes(scores), [Limit(name="x", limit=limit, amount=amount)])
    best = None
    for counts in itertools.product(*(range(1, n + 1) for n in sizes)):
        named = {f"g{i}": n for i, n in enumerate(counts)}
        if amount(named) <= limit:
            damage = sum(sum(sorted(scores[g])[: len(scores[g]) - n]) for g, n in named.items())
            best = damage if best is None else min(best, damage)
    assert found.feasible == (best is not None)
    if best is not None:
        assert amount(found.counts) <= limit
        # A greedy solution with give-back misses the optimum by at most the dearest single unit.
        assert found.damage <= best + max(max(v) for v in scores.values()) + 1e-9


PLAN = PrunePlan(
    program="abc",
    criterion="taylor",
    keep={"g0": (0, 2)},
    runtime="onnxruntime",
    precision="int8",
    estimate=Estimate(ms=0.5, source="layer timings"),
    cost=Cost(macs=1, params=2, weight_bytes=8, neurons=3),
)


def test_a_plan_survives_the_file(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(plan_text(PLAN))
    assert read_plan(path) == PLAN
    path.write_text(plan_text(PrunePlan(program="p", criterion="none", keep={})))
    assert read_plan(path).keep == {}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not JSON"),
        ("[]", "schema"),
        ('{"schema": "edgefit.plan/9"}', "schema"),
        ('{"schema": "edgefit.plan/1", "program": 3, "criterion": "x", "keep": {}}', "program"),
        ('{"schema": "edgefit.plan/1", "program": "x", "criterion": "x", "keep": {"g": 3}}', "keep.g"),
        ('{"schema": "edgefit.plan/1", "program": "x"}', "missing"),
        ('{"schema": "edgefit.plan/1", "colour": "red"}', "fields"),
    ],
)
def test_a_malformed_plan_is_refused(tmp_path, text, part):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InputError, match=part):
        read_plan(path)


@pytest.mark.parametrize("keep", [{"nope": (0,)}, {"g0": ()}, {"g0": (0, 9)}, {"g0": (1, 0)}, {"g0": (0, 0)}])
def test_a_plan_that_does_not_fit_is_refused(keep):
    record = json.loads(plan_text(PLAN))
    plan = PrunePlan(program=record["program"], criterion="x", keep=keep)
    with pytest.raises(InputError):
        check_plan(plan, "abc", channels(4))


def test_a_plan_for_another_network_is_refused():
    with pytest.raises(InputError, match="made for network"):
        check_plan(PLAN, "other", channels(4))
