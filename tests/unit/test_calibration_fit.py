"""Fitting calibrated models: known coefficients come back, outliers and traces do not mislead, no leakage."""

import numpy as np
import pytest

from benchmarks.calibration.fit import Strength, left_out, solve, together
from benchmarks.calibration.run import interval

TRUE = np.array([2.0, 0.5, 0.0, 1.5])
FREE = Strength(shared=1e-9, own=1e-9, scale=1e-9, fewest=2)


def drawn(rows: int, seed: int = 0) -> np.ndarray:
    """Amounts of three terms over two orders of magnitude, and the overhead's column of ones."""
    x = np.exp(np.random.default_rng(seed).uniform(0, 4, (rows, 4)))
    x[:, -1] = 1.0
    return x


def test_coefficients_come_back():
    x = drawn(40)
    assert solve(x, x @ TRUE, strength=1e-12) == pytest.approx(TRUE, rel=1e-4, abs=1e-6)


def test_coefficients_are_not_negative():
    x = drawn(40)
    assert (solve(x, x @ np.array([2.0, -0.01, 0.3, 1.0])) >= 0).all()


def test_outliers_are_weighted_down():
    x = drawn(60)
    y = x @ TRUE
    y[:5] *= 3
    found = solve(x, y, strength=1e-9)
    assert np.median(np.abs(x @ found / (x @ TRUE) - 1)) < 0.02


def test_a_trace_of_a_term_does_not_set_its_coefficient():
    """One network with a little of a term takes up its residual with it; `usual` says how little that is."""
    x = drawn(30)
    x[:, 1] = 0.0
    x[0, 1] = 1e-6
    y = x @ TRUE
    y[0] *= 1.2
    usual = np.array([1.0, 1.0, 1.0, 0.1])
    assert solve(x, y, strength=1e-6)[1] > 1e3
    assert solve(x, y, strength=1e-6, usual=usual)[1] < 1.0


def test_devices_share_coefficients_up_to_a_factor_and_an_overhead():
    x = np.vstack([drawn(30), drawn(30, 1)])
    groups = ["slow"] * 30 + ["fast"] * 30
    y = np.concatenate([3 * (x[:30] @ TRUE) + 5, x[30:] @ TRUE])
    models = together(x, y, groups, FREE)
    predicted = np.concatenate([x[:30] @ models["slow"], x[30:] @ models["fast"]])
    assert np.abs(predicted / y - 1).max() < 0.02


def test_few_networks_take_the_shape_of_their_relatives():
    """Two networks cannot tell four coefficients apart: the others' serve, scaled."""
    x = np.vstack([drawn(40), drawn(6, 2)])
    groups = ["known"] * 40 + ["new"] * 6
    y = np.concatenate([x[:40] @ TRUE, 2 * (x[40:] @ TRUE)])
    few = np.r_[0:40, 40, 41]
    models = together(x[few], y[few], [groups[k] for k in few], Strength(scale=1e-6))
    assert np.abs(x[42:] @ models["new"] / y[42:] - 1).max() < 0.1


def test_what_is_left_out_is_left_out_everywhere():
    """A network whose rows are wrong on every device is predicted from the others alone."""
    x = np.vstack([drawn(20), drawn(20)])
    networks = [k % 20 for k in range(40)]
    groups = ["a"] * 20 + ["b"] * 20
    y = x @ TRUE
    y[[7, 27]] *= 10
    found = left_out(x, y, groups, networks, Strength(shared=1e-6, own=1e-6, scale=1e-6))
    assert found[[7, 27]] == pytest.approx((x @ TRUE)[[7, 27]], rel=0.15)


def test_a_group_without_other_rows_has_no_error():
    x = drawn(21)
    groups = ["a"] * 20 + ["alone"]
    found = left_out(x, x @ TRUE, groups, list(range(21)), FREE)
    assert np.isnan(found[20])
    assert np.isfinite(found[:20]).all()


def test_intervals_cover_what_they_say():
    """Split conformal: over many draws 90 % of unseen residuals lie inside, also with few known ones."""
    draw = np.random.default_rng(3)
    for known in (25, 60):
        inside = []
        for _ in range(1500):
            residuals = draw.normal(0.02, 0.1, known + 1)
            low, high = interval(residuals[:-1])
            inside.append(low <= np.exp(residuals[-1]) <= high)
        assert 0.88 <= np.mean(inside) <= 0.96
