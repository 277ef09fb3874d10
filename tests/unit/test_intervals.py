"""Medians with intervals, ratios and verdicts: do the intervals cover what they say?"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import InputError
from toolchain.latency.intervals import (
    Trial,
    median_interval,
    pooled,
    ratio,
    summarise,
    verdict,
)
from toolchain.values import Conditions, Measurement

CONDITIONS = Conditions(
    device="test",
    os="none",
    cpu=None,
    governor=None,
    frequency_mhz=None,
    load=None,
    threads=1,
    runtime="none",
    runtime_version="0",
)
times = st.floats(0.01, 100, allow_nan=False)


def measured(trials: list[list[float]], sha256: str = "a") -> Measurement:
    return summarise(
        [Trial(wall_ms=tuple(samples)) for samples in trials],
        label="model",
        sha256=sha256,
        runtime="none",
        precision="fp32",
        conditions=CONDITIONS,
    )


@pytest.mark.parametrize("trials", [6, 8, 10, 16, 24, 41])
@pytest.mark.parametrize("shape", ["normal", "exponential", "lognormal"])
def test_the_interval_covers_the_true_median_in_95_percent_of_cases(trials: int, shape: str) -> None:
    seed = np.random.default_rng(trials)
    truth = {"normal": 0.0, "exponential": np.log(2), "lognormal": 1.0}[shape]
    draws = getattr(seed, shape if shape != "normal" else "standard_normal")
    rows = draws(size=(1500, trials))
    found = [median_interval(row) for row in rows]
    covered = np.mean([i.low <= truth <= i.high for i in found])
    # 1,500 repetitions have a standard error of 0.56 points; four of them, and the 0.7 of the interpolation.
    assert 0.95 - 0.03 <= covered <= 0.95 + 0.03


@pytest.mark.parametrize("trials", [2, 3, 4, 5])
def test_few_trials_give_a_wide_interval_that_still_covers(trials: int) -> None:
    rows = np.random.default_rng(trials).standard_normal((1500, trials))
    found = [median_interval(row) for row in rows]
    assert np.mean([i.low <= 0 <= i.high for i in found]) >= 0.92


def test_dependent_runs_do_not_narrow_the_interval() -> None:
    """Sessions differ by 3 %, runs within one by 1 %: pooling runs as if independent would cover 20 %."""
    seed = np.random.default_rng(0)
    covered = pooled_covered = 0
    for _ in range(300):
        sessions = 1 + 0.03 * seed.standard_normal(16)
        samples = sessions[:, None] * (1 + 0.01 * seed.standard_normal((16, 60)))
        m = measured(samples.tolist())
        covered += m.p50_low_ms <= 1.0 <= m.p50_high_ms
        naive = median_interval(samples.ravel())
        pooled_covered += naive.low <= 1.0 <= naive.high
    assert covered / 300 >= 0.91
    assert pooled_covered / 300 <= 0.6


@given(st.lists(times, min_size=1, max_size=60))
def test_the_median_lies_in_its_interval(values: list[float]) -> None:
    found = median_interval(values)
    assert found.value == np.median(values)
    assert found.low <= found.value <= found.high


@given(st.lists(times, min_size=6, max_size=40), st.floats(0.1, 10))
def test_the_interval_scales_with_the_unit(values: list[float], factor: float) -> None:
    one, other = median_interval(values), median_interval([v * factor for v in values])
    assert other.low == pytest.approx(one.low * factor)
    assert other.high == pytest.approx(one.high * factor)


@given(st.lists(times, min_size=6, max_size=40), st.randoms())
def test_the_order_of_trials_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert median_interval(shuffled) == median_interval(values)


def test_one_wild_trial_does_not_move_the_median() -> None:
    calm = [[1.0, 1.1, 1.2]] * 15
    assert measured([*calm, [50.0, 60.0, 70.0]]).p50_ms == pytest.approx(1.1)


def test_summarise_takes_median_and_90th_percentile_of_each_trial() -> None:
    found = measured([[float(k) for k in range(1, 12)]] * 6)
    assert (found.p50_ms, found.p90_ms) == (6.0, 10.0)
    assert (found.p50_low_ms, found.p50_high_ms) == (6.0, 6.0)
    assert len(found.samples_ms) == 6


def test_a_single_trial_claims_no_more_than_the_range_of_its_runs() -> None:
    found = measured([[1.0, 2.0, 5.0]])
    assert (found.p50_low_ms, found.p50_high_ms) == (1.0, 5.0)


@pytest.mark.parametrize("trials", [[], [[1.0], []]])
def test_no_samples_is_an_error(trials: list[list[float]]) -> None:
    with pytest.raises(InputError, match="no samples"):
        measured(trials)


@pytest.mark.parametrize(
    ("budget_ms", "expected"), [(2.0, "held"), (0.5, "over"), (1.2, "inconclusive"), (1.5, "inconclusive")]
)
def test_verdict(budget_ms: float, expected: str) -> None:
    found = replace(measured([[1.2]] * 6), p50_low_ms=1.0, p50_high_ms=1.5)
    assert verdict(found, budget_ms) == expected


def test_nothing_measured_has_no_verdict() -> None:
    assert verdict(None, 1.0) == "not measured"


def test_a_disturbance_that_hits_both_of_a_pair_cancels_in_the_ratio() -> None:
    slow = np.linspace(1, 3, 12)
    base = measured([[s] * 3 for s in slow])
    half = measured([[s / 2] * 3 for s in slow])
    found = ratio(half, base)
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_unpaired_measurements_have_no_ratio() -> None:
    with pytest.raises(InputError, match="not measured together"):
        ratio(measured([[1.0]] * 3), measured([[1.0]] * 4))


def test_pooling_adds_trials_of_the_same_file_only() -> None:
    first, second = measured([[1.0]] * 6), measured([[3.0]] * 8)
    both = pooled(first, second)
    assert len(both.samples_ms) == 14
    assert both.p50_ms == 3.0
    with pytest.raises(InputError, match="not of the same thing"):
        pooled(first, measured([[1.0]] * 6, sha256="b"))
