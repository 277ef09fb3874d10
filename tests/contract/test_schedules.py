"""Every schedule, by registry: from nothing or all to all, never back, and a learning rate that fits."""

import pytest

from toolchain import registry

SCHEDULES = registry.names("toolchain.prune.schedules")
TIMES = [i / 1000 for i in range(1001)]


def schedule(name):
    return registry.find("toolchain.prune.schedules", "SCHEDULE", name)


def test_the_four_are_found():
    assert {"one-shot", "iterative", "agp", "one-cycle"} <= set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_removals_never_go_back_and_end_complete(name):
    found = schedule(name)
    shares = [found.removed(t) for t in TIMES]
    assert shares == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] == 1
    assert found.name == name
    assert found.summary


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_learning_rate_is_a_share_of_its_peak(name):
    found = schedule(name)
    if found.rate is not None:
        rates = [found.rate(t) for t in TIMES]
        assert min(rates) >= 0
        assert max(rates) == pytest.approx(1.0, abs=1e-4)
        assert rates[-1] < 1e-6


def test_the_curves_are_those_of_their_sources():
    shares = {name: schedule(name).removed for name in SCHEDULES}
    assert shares["one-shot"](0) == 1
    assert shares["iterative"](0) == pytest.approx(1 / 15)
    assert shares["iterative"](0.149) == pytest.approx(3 / 15)
    assert shares["iterative"](0.15) == pytest.approx(4 / 15)
    assert shares["iterative"](0.7) == 1
    assert shares["agp"](0.375) == pytest.approx(1 - 0.5**3)
    assert shares["agp"](0.75) == 1
    assert shares["one-cycle"](5 / 14) == pytest.approx(0.5, abs=1e-3)
    assert shares["one-cycle"](0) < 0.01
