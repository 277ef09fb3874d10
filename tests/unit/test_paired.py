"""The gate's statistics: the interval of a ratio against counting all signs, looks that do not add up."""

import itertools
import math

import numpy as np
import pytest

from toolchain.latency.noise import Noise, block_spread, known_noise, noise_file, noise_text, visible
from toolchain.latency.paired import ALPHA, BLOCK, look_sizes, ratio_interval, spent
from toolchain.latency.sequential import answer_of, until_clear


def coverage_by_counting(n, low_rank):
    """P that the median lies between the Walsh averages at `low_rank` and its mirror, over all 2^n signs."""
    sizes = np.arange(1, n + 1)
    sums = [
        sum(s for s, sign in zip(sizes, signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=n)
    ]
    return np.mean([low_rank < w < n * (n + 1) / 2 - low_rank for w in sums])


@pytest.mark.parametrize("n", [8, 10, 12])
@pytest.mark.parametrize("alpha", [0.05, 0.02])
def test_interval_is_the_narrowest_pair_of_walsh_averages_that_covers(n, alpha):
    values = np.random.default_rng(n).normal(size=n)
    walsh = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))
    found = ratio_interval(values, alpha)
    depth = walsh.index(pytest.approx(math.log(found.low)))
    assert math.log(found.high) == pytest.approx(walsh[-1 - depth])
    assert coverage_by_counting(n, depth) >= 1 - alpha > coverage_by_counting(n, depth + 1)


def test_normal_approximation_agrees_with_counting_where_both_apply(monkeypatch):
    from toolchain.latency import paired

    for tail in (0.025, 0.025 / 21):
        exact = paired._most_outside(200, tail)
        monkeypatch.setattr(paired, "_EXACT", 10)
        # Of 20,100 Walsh averages; the approximation may only be wider.
        assert 0 <= exact - paired._most_outside(200, tail) <= 20
        monkeypatch.undo()


def test_too_few_pairs_say_nothing():
    found = ratio_interval([0.1, 0.2, 0.3], 0.025)
    assert (found.low, found.high) == (0.0, math.inf)
    assert found.value == pytest.approx(math.exp(0.2))


def test_one_wild_pair_does_not_move_the_answer():
    values = [0.0, 0.001, -0.001, 0.002, -0.002, 0.0005, -0.0005, 0.0]
    wild = [*values[:-1], 5.0]
    assert ratio_interval(wild, 0.05).value == pytest.approx(ratio_interval(values, 0.05).value, abs=2e-3)


def test_looks_grow_and_their_shares_never_exceed_the_whole():
    assert look_sizes(7) == (8, 16, 24, 40, 64, 96, 144)
    assert sum(spent(k) for k in range(1, 10_000)) < ALPHA
    assert all(size % BLOCK == 0 for size in look_sizes(20))


def stream(rng, true_log, noise):
    return lambda pairs: list(true_log + noise(rng, pairs))


def normal(rng, n):
    return 0.02 * rng.standard_normal(n)


def heavy(rng, n):
    return 0.01 * rng.standard_t(1.5, n)


@pytest.mark.parametrize("noise", [normal, heavy])
def test_many_looks_do_not_add_up_to_many_false_alarms(noise):
    """A model exactly at the limit fails with at most half of ALPHA, though there are eight looks."""
    rng, failed, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        ticks = itertools.count()
        course = until_clear(
            stream(rng, math.log(1.05), noise), limit=1.05, seconds=30, clock=lambda t=ticks: next(t)
        )
        failed += course.answer == "fail"
    # ALPHA / 2 of 400 is 10, and four standard deviations above that; looking eight times at 2.5 % gives 40.
    assert failed < runs * ALPHA / 2 + 4 * math.sqrt(runs * ALPHA / 2)


def test_clear_answers_come_at_the_first_look_and_unclear_ones_take_the_time():
    rng = np.random.default_rng(2)
    slow = until_clear(stream(rng, math.log(1.5), normal), limit=1.05, seconds=1e9)
    same = until_clear(stream(rng, 0.0, lambda r, n: 1e-3 * r.standard_normal(n)), limit=1.05, seconds=1e9)
    assert (slow.answer, len(slow.looks), slow.looks[0].pairs) == ("fail", 1, BLOCK)
    assert (same.answer, len(same.log_ratios)) == ("pass", BLOCK)
    ticks = itertools.count(step=2.0)
    doubtful = until_clear(
        stream(rng, math.log(1.05), normal), limit=1.05, seconds=50, clock=lambda: next(ticks)
    )
    assert doubtful.answer == "inconclusive"
    assert doubtful.seconds <= 60
    assert doubtful.looks[-1].pairs == len(doubtful.log_ratios) > 3 * BLOCK


def test_another_open_question_keeps_it_measuring():
    asked = []

    def enough():
        asked.append(1)
        return len(asked) == 3

    course = until_clear(stream(np.random.default_rng(3), 0.0, normal), limit=1.5, seconds=1e9, enough=enough)
    assert [look.pairs for look in course.looks] == [8, 16, 24]


def test_answers_by_the_whole_interval():
    interval = ratio_interval(np.log([1.02 + k / 1000 for k in range(8)]), 0.05)
    assert answer_of(interval, 1.01) == "fail"
    assert answer_of(interval, 1.04) == "pass"
    assert answer_of(interval, 1.0235) == "inconclusive"


def noise_of(ratio, seconds=1.0):
    return Noise(
        ratio=ratio, blocks=10, seconds=seconds, model="m", clock="cpu", created="now", identity={"os": "x"}
    )


def test_spread_of_blocks_is_that_of_their_centres():
    rng = np.random.default_rng(4)
    blocks = [0.01 * rng.standard_normal() + 1e-5 * rng.standard_normal(BLOCK) for _ in range(200)]
    assert block_spread(blocks) == pytest.approx(0.01, rel=0.15)


def test_visible_slow_downs_shrink_with_time_and_are_really_seen():
    noise = noise_of(0.01)
    seen = [visible(noise, seconds) for seconds in (4, 16, 64, 256)]
    assert seen == sorted(seen, reverse=True)
    assert visible(noise, 1.0) == math.inf
    # A model this much over the limit is called in about 95 % of runs: simulated with pairs of that noise.
    rng, runs = np.random.default_rng(5), 150
    pair_noise = 0.01 * math.sqrt(BLOCK)
    above = math.log(1.05 * (1 + visible(noise, 64)))
    caught = 0
    for _ in range(runs):
        ticks = itertools.count(step=0.5)  # the clock is asked about twice a block
        course = until_clear(
            lambda n: list(above + pair_noise * rng.standard_normal(n)),
            limit=1.05, seconds=32, clock=lambda t=ticks: next(t),
        )  # fmt: skip
        caught += course.answer == "fail"
    assert caught / runs > 0.85


def test_noise_is_found_again_only_under_the_same_conditions(tmp_path):
    noise = noise_of(0.004)
    path = noise_file(tmp_path, noise.identity)
    assert known_noise(tmp_path, noise.identity) is None
    path.parent.mkdir()
    path.write_text(noise_text(noise))
    assert known_noise(tmp_path, noise.identity) == noise
    assert known_noise(tmp_path, {"os": "y"}) is None
    path.write_text(noise_text(noise)[:40])
    assert known_noise(tmp_path, noise.identity) is None
