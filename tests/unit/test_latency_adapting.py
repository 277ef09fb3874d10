"""Models adapted to one's own device: scale and overhead come back, priors hold where little is known."""

from dataclasses import replace

import pytest

from toolchain import registry
from toolchain.errors import InputError
from toolchain.latency.adapting import Measured, adapt
from toolchain.latency.calibrated import predict, read
from toolchain.latency.operators import Operator
from toolchain.latency.terms import INFERENCE

BASE = replace(
    read(registry.find("targets", "TARGET", "jetson").calibration).models[0],
    ms_per={"gemm.macs": 2.0, INFERENCE: 1.0},
)


def network(giga: float) -> tuple[Operator, ...]:
    macs = int(giga * 1e9)
    return (Operator(layer="w", op="conv", kind="dense", macs=macs, in_channels=16, out_channels=16, rows=9),)


def measured(scale: float, overhead: float, *sizes: float) -> list[Measured]:
    return [Measured(operators=network(s), ms=scale * 2 * s + overhead) for s in sizes]


def test_several_measurements_give_scale_and_overhead():
    _, change = adapt(BASE, measured(1.4, 1.5, *(0.1 * 1.5**k for k in range(15))), source="mine.csv")
    assert change.scale == pytest.approx(1.4, rel=0.03)
    assert change.overhead_ms == pytest.approx(1.5, rel=0.03)
    assert change.was_ms == 1.0


def test_one_measurement_of_a_large_network_moves_the_scale():
    own, change = adapt(BASE, measured(1.5, 1.0, 50), source="mine.csv")
    assert change.scale == pytest.approx(1.5, rel=0.1)
    assert change.overhead_ms == pytest.approx(1.0, abs=0.5)
    assert predict(own, network(20)).estimate.ms == pytest.approx(1.5 * 40 + 1, rel=0.1)


def test_a_measurement_like_the_published_device_changes_nothing():
    own, change = adapt(BASE, measured(1.0, 1.0, 3, 30), source="mine.csv")
    assert (change.scale, change.overhead_ms) == pytest.approx((1.0, 1.0))
    assert predict(own, network(7)).estimate.ms == pytest.approx(predict(BASE, network(7)).estimate.ms)


def test_the_overhead_is_never_negative():
    _, change = adapt(BASE, measured(3.0, 0.0, 0.05, 0.1, 0.2, 1, 10), source="mine.csv")
    assert change.overhead_ms >= 0
    assert change.scale > 1


def test_an_adapted_model_says_so_and_keeps_its_evidence():
    own, _ = adapt(BASE, measured(2.0, 1.0, 5), source="mine.csv")
    assert "1 measurement in mine.csv" in own.adapted
    assert own.evidence.sources[:-1] == BASE.evidence.sources
    assert (own.evidence.sources[-1].url, own.evidence.sources[-1].rows) == ("mine.csv", 1)
    assert own.interval == BASE.interval


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_measurements_are_refused(ms):
    with pytest.raises(InputError, match="positive number"):
        adapt(BASE, [Measured(operators=network(1), ms=ms)], source="mine.csv")


def test_no_measurements_are_refused():
    with pytest.raises(InputError, match="no measurements"):
        adapt(BASE, [], source="mine.csv")
