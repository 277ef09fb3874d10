"""Tiers and what their samples amount to: nothing is made up, nothing incomplete is accepted."""

import statistics

import numpy as np
import pytest

from targets._shared.benching import job_of
from toolchain.contracts import BenchSettings, ModelFile, Tier
from toolchain.errors import DeviceError
from toolchain.latency.intervals import median_interval
from toolchain.latency.tiers import TAIL_RUNS, TIERS, timing

TIER = Tier(name="t", runs=40, seconds=0.0, trials=8)


def record(trial=0, window=0, wall=(1_000_000,) * 5, **more):
    once = {"load_ns": 5_000_000, "first_ns": 2_000_000} if window == 0 else {}
    times = {"wall_ns": list(wall), "cpu_ns": list(wall), "min_ns": min(wall), "runs": len(wall)}
    return {"type": "trial", "trial": trial, "model": 0, "window": window, **once, **times, **more}


def test_the_tiers_are_those_of_the_help_page():
    shape = {name: (tier.runs, tier.seconds) for name, tier in TIERS.items()}
    assert shape == {
        "rapid": (64, 6),
        "quick": (128, 10),
        "normal": (1024, 60),
        "release": (1024, 600),
        "sustained": (1024, 1800),
    }


@pytest.mark.parametrize("name", TIERS)
def test_a_job_makes_the_runs_and_seconds_of_its_tier(name, tmp_path):
    tier = TIERS[name]
    file = ModelFile(path=tmp_path / "a.onnx", runtime="onnxruntime", sha256="0" * 64)
    job = job_of([file], BenchSettings(tier=tier), ["/a.onnx"], hashed=True)
    parts = job.trials * job.windows
    assert job.least * parts >= tier.runs
    assert job.seconds * parts == pytest.approx(tier.seconds)
    assert job.most == 0
    assert job.models[0].sha256 == file.sha256
    assert job_of([file], BenchSettings(tier=tier), ["/a.onnx"]).models[0].sha256 is None


def test_the_interval_comes_from_the_sessions_not_from_their_runs():
    rng = np.random.default_rng(0)
    walls = [tuple(int(1e6 * (1 + t / 10) + n) for n in rng.integers(0, 1000, 5)) for t in range(8)]
    found = timing([record(trial=t, wall=w) for t, w in enumerate(walls)], TIER)
    assert found.p50 == median_interval([statistics.median(w) / 1e6 for w in walls])
    assert found.p50.low <= found.p50.value <= found.p50.high
    assert found.min_ms == min(map(min, walls)) / 1e6
    assert found.samples_ms == tuple(tuple(ns / 1e6 for ns in w) for w in walls)
    assert (found.runs, found.kept, found.load_ms, found.first_ms) == (40, 40, 5.0, 2.0)
    assert (found.settled, found.late, found.slowdown, found.throttled) == (None, None, None, None)


@pytest.mark.parametrize("runs", [TAIL_RUNS // 8 - 1, TAIL_RUNS // 8])
def test_the_slowest_one_in_a_hundred_needs_a_thousand_runs(runs):
    walls = tuple(range(1_000_000, 1_000_000 + runs))
    found = timing([record(trial=t, wall=walls) for t in range(8)], TIER)
    if found.runs < TAIL_RUNS:
        assert found.p99_ms is None
    else:
        assert found.p99_ms == pytest.approx(np.quantile(np.tile(walls, 8), 0.99) / 1e6)


def test_thinned_samples_keep_the_smallest_and_the_count():
    thin = [record(trial=t, runs=10, min_ns=900_000) for t in range(8)]
    found = timing(thin, TIER)
    assert (found.runs, found.kept, found.min_ms) == (80, 40, 0.9)


@pytest.mark.parametrize(("last", "throttled"), [(1.02, False), (1.2, True)])
def test_a_session_that_slows_down_is_throttled(last, throttled):
    tier = Tier(name="t", runs=1, seconds=0, trials=1, windows=10)
    walls = [(1_000_000,) * 5] * 8 + [(int(1e6 * last),) * 5] * 2
    found = timing([record(window=w, wall=wall, celsius=40.0 + w) for w, wall in enumerate(walls)], tier)
    assert found.slowdown == pytest.approx(last)
    assert found.throttled is throttled
    assert [w.celsius for w in found.windows] == [40.0 + w for w in range(10)]


def minutes(p50s):
    """A session of the tier `sustained`: in each minute runs of which three of 21 take half as long again."""
    walls = [tuple([int(1e6 * p50)] * 18 + [int(1.5e6 * p50)] * 3) for p50 in p50s]
    tier = Tier(name="sustained", runs=1, seconds=0, trials=1, windows=30)
    return timing([record(window=w, wall=wall) for w, wall in enumerate(walls)], tier)


@pytest.mark.parametrize(
    ("p50s", "slowdown", "throttled"),
    [
        ([1.0] * 30, 1.0, False),
        ([1.0] * 15 + [3.0] + [1.0] * 14, 1.0, False),  # one bad minute is no heat
        ([1.0] * 29 + [3.0], 1.0, False),
        ([1.0] * 24 + [1.049] * 6, 1.049, False),
        ([1.0] * 24 + [1.051] * 6, 1.051, True),
        ([1.0 + 0.01 * minute for minute in range(30)], 1.265 / 1.025, True),  # slower and slower
        ([2.0] * 6 + [1.0] * 24, 0.5, False),  # a slow start is none either
    ],
)
def test_thirty_minutes_say_whether_heat_slowed_the_device(p50s, slowdown, throttled):
    found = minutes(p50s)
    assert found.slowdown == pytest.approx(slowdown, rel=1e-5)
    assert found.throttled is throttled
    assert [w.p50_ms for w in found.windows] == pytest.approx(p50s, rel=1e-5)
    assert [w.p90_ms for w in found.windows] == pytest.approx([1.5 * p50 for p50 in p50s], rel=1e-5)
    assert (found.p50.value, len(found.samples_ms)) == (pytest.approx(statistics.median(p50s)), 30)


def test_what_is_not_complete_is_refused():
    with pytest.raises(DeviceError, match="7 of 8 parts"):
        timing([record(trial=t) for t in range(7)], TIER)
    with pytest.raises(DeviceError, match="8 of 8 parts"):
        timing([record(trial=t, wall=(1,) * 4) for t in range(8)], TIER)


def test_doubts_are_counted():
    more = [record(trial=t, settled=t != 3, late=2) for t in range(8)]
    found = timing(more, TIER)
    assert (found.settled, found.late) == (False, 16)
