"""Formulas of budget-aware regularization against closed forms, sampling and small numerical cases."""

import math

import numpy as np
import pytest
import torch

from toolchain.train.barrier import TRANSITIONS, barrier, margins
from toolchain.train.hard_concrete import BETA, GAMMA, ZETA, at_rest, drawn, surprise, survival

LOG_ALPHAS = (-3.0, -1.0, 0.0, 0.5, 2.5)
DRAWS = 400_000


def sampled(log_alpha):
    random = torch.Generator().manual_seed(0)
    uniform = torch.rand(DRAWS, generator=random, dtype=torch.float64)
    return drawn(torch.full((DRAWS,), log_alpha, dtype=torch.float64), uniform)


@pytest.mark.parametrize("log_alpha", LOG_ALPHAS)
def test_how_often_a_gate_is_open_is_how_often_it_is_drawn_so(log_alpha):
    z = sampled(log_alpha)
    assert z.min() >= 0
    assert z.max() <= 1
    for threshold in (0.0, 0.3, 0.9):
        chance = float(survival(torch.tensor(log_alpha, dtype=torch.float64), threshold))
        error = 4 * math.sqrt(chance * (1 - chance) / DRAWS)
        assert float((z > threshold).double().mean()) == pytest.approx(chance, abs=error)


@pytest.mark.parametrize("log_alpha", LOG_ALPHAS)
@pytest.mark.parametrize("power", [1, 2])
def test_moments_are_integrals_of_the_survival_function(log_alpha, power):
    """E[z^k] = integral over (0, 1) of k x^(k-1) P(z > x) dx."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = (nodes + 1) / 2
    chances = [float(survival(torch.tensor(log_alpha, dtype=torch.float64), t)) for t in x.tolist()]
    moment = float((weights / 2 * power * x ** (power - 1) * chances).sum())
    z = sampled(log_alpha) ** power
    assert float(z.mean()) == pytest.approx(moment, abs=4 * float(z.std()) / math.sqrt(DRAWS))


def test_the_chance_of_being_open_is_the_formula_of_its_source():
    log_alpha = torch.linspace(-6, 6, 25, dtype=torch.float64)
    expected = torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))
    assert torch.allclose(survival(log_alpha), expected)
    assert torch.allclose(surprise(log_alpha), -torch.log(1 - expected))


def test_a_gate_at_rest_is_open_where_it_is_more_often_open_than_not():
    log_alpha = torch.linspace(-3, 3, 601, dtype=torch.float64)
    clear = (survival(log_alpha) - 0.5).abs() > 1e-6
    assert torch.equal((at_rest(log_alpha) > 0)[clear], (survival(log_alpha) > 0.5)[clear])
    assert float(at_rest(torch.tensor(0.0))) == pytest.approx(0.5)


def test_the_barrier_is_nothing_below_a_and_infinite_from_b_on():
    a, b = 3.0, 5.0
    assert barrier(2.0, a, b) == barrier(a, a, b) == 0
    assert barrier(b, a, b) == barrier(7.0, a, b) == math.inf
    assert barrier(4.0, a, b) == pytest.approx(1 / (1 * 2))
    assert barrier(b - 1e-9, a, b) == pytest.approx((b - a) / 1e-9, rel=1e-6)


@pytest.mark.parametrize("volume", [3.0 + 1e-4, 3.5, 4.0, 4.9])
def test_the_slope_of_the_barrier_is_that_of_its_formula(volume):
    """With c = (V - a) / (b - a), f = c^2 / (1 - c) and f' = c (2 - c) / (1 - c)^2 / (b - a)."""
    a, b, step = 3.0, 5.0, 1e-7
    c = (volume - a) / (b - a)
    slope = (barrier(volume + step, a, b) - barrier(volume - step, a, b)) / (2 * step)
    assert slope == pytest.approx(c * (2 - c) / (1 - c) ** 2 / (b - a), rel=1e-5, abs=1e-6)


def test_the_barrier_starts_level():
    a, b, step = 3.0, 5.0, 1e-6
    assert (barrier(a + step, a, b) - barrier(a, a, b)) / step < 1e-5


@pytest.mark.parametrize("name", TRANSITIONS)
def test_the_budget_goes_from_the_whole_network_to_its_end_and_never_back(name):
    steps = [i / 200 for i in range(201)]
    budgets = [margins(10.0, 2.0, done, name)[1] for done in steps]
    assert budgets[0] == pytest.approx(10.0)
    assert budgets[-1] == pytest.approx(2.0)
    assert budgets == sorted(budgets, reverse=True)
    assert {margins(10.0, 2.0, done, name)[0] for done in steps} == {2.0 - 1e-3}


def test_the_transitions_are_slow_where_they_are_said_to_be():
    share = {name: [t(0.1), t(0.5), t(0.9)] for name, t in TRANSITIONS.items()}
    assert share["linear"] == [0.1, 0.5, 0.9]
    assert share["sigmoid"][0] < 0.02
    assert share["sigmoid"][1] == pytest.approx(0.5)
    assert share["sigmoid"][2] > 0.98
    assert share["exponential"][0] > 0.3
    assert share["exponential"][1] > 0.9
