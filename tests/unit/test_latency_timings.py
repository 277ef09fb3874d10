"""The user's cache of layer timings: where it is, when it is believed, and what several runs do to it."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from toolchain.errors import InputError
from toolchain.latency.timings import CONDITIONS, Timings, cache_folder, timings
from toolchain.values import Conditions

STATE = Conditions(
    device="board",
    os="Linux 6",
    cpu="one",
    governor="performance",
    frequency_mhz=2000.0,
    load=(0.1, 0.1, 0.1),
    threads=1,
    runtime="engine",
    runtime_version="1",
    max_mhz=2400.0,
    boost=True,
)
OTHER = {
    "device": "another board",
    "os": "Linux 7",
    "cpu": "two",
    "governor": "powersave",
    "threads": 2,
    "runtime": "another engine",
    "runtime_version": "2",
    "max_mhz": 1200.0,
    "boost": False,
}
POINTS = {(4, 8): 0.25, (16, 32): 0.5}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"EDGEFIT_CACHE": "/a/own", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a/own"),
        ({"EDGEFIT_CACHE": "", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/edgefit"),
        ({"EDGEFIT_CACHE": "~/own", "HOME": "/c"}, "/c/own"),
        ({"XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/edgefit"),
    ],
)
def test_the_folder_is_the_users(monkeypatch, variables, expected):
    for name in ("EDGEFIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_doctor_names_the_folder():
    from toolchain.doctor import doctor  # not above: the processes started below import this file
    from toolchain.listings import doctor_text

    assert doctor()["cache"] == str(cache_folder())
    assert str(cache_folder()) in doctor_text(doctor())


def test_the_tests_have_a_cache_of_their_own():
    assert not cache_folder().is_relative_to(Path.home() / ".cache")


def test_what_one_run_keeps_the_next_one_knows(tmp_path):
    timings(tmp_path, STATE, "fp32").keep("shape", POINTS)
    assert timings(tmp_path, STATE, "fp32").known("shape") == POINTS
    assert timings(tmp_path, STATE, "fp32").known("other shape") == {}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("unreadable", [False, True])
def test_timings_of_other_conditions_are_refused(tmp_path, name, unreadable):
    """Even in the right place: a folder may have been copied from another machine."""
    mine = timings(tmp_path, STATE, "fp32")
    mine.keep("shape", POINTS)
    other = timings(tmp_path, replace(STATE, **{name: None if unreadable else OTHER[name]}), "fp32")
    assert other.folder != mine.folder
    assert other.known("shape") == {}
    assert Timings(folder=mine.folder, identity=other.identity).known("shape") == {}


def test_timings_of_another_precision_are_refused(tmp_path):
    mine = timings(tmp_path, STATE, "fp32")
    mine.keep("shape", POINTS)
    other = timings(tmp_path, STATE, "int8")
    assert Timings(folder=mine.folder, identity=other.identity).known("shape") == {}


def test_what_cannot_be_read_stays_unknown_and_does_not_hinder(tmp_path):
    unread = replace(STATE, cpu=None, governor=None, max_mhz=None, boost=None)
    timings(tmp_path, unread, "fp32").keep("shape", POINTS)
    assert timings(tmp_path, unread, "fp32").known("shape") == POINTS
    (path,) = tmp_path.rglob("shape.json")
    assert json.loads(path.read_text())["identity"]["governor"] is None


def test_the_clock_and_load_of_the_moment_do_not_matter(tmp_path):
    timings(tmp_path, STATE, "fp32").keep("shape", POINTS)
    later = replace(STATE, frequency_mhz=1100.0, load=(9.0, 9.0, 9.0), affinity=(1,))
    assert timings(tmp_path, later, "fp32").known("shape") == POINTS


def add_slowly(cache, number, count):
    """Read, wait, write: without a lock the slowest writer wins."""
    mine = timings(cache, STATE, "fp32")
    for k in range(count):
        with mine.alone():
            known = mine.known("shape")
            time.sleep(0.01)
            mine.keep("shape", {**known, (number, k): 1.0})


def test_runs_at_the_same_time_lose_nothing_of_each_other(tmp_path):
    pytest.importorskip("fcntl")
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=add_slowly, args=(tmp_path, n, 6)) for n in range(1, 4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(300)
        assert run.exitcode == 0
    found = timings(tmp_path, STATE, "fp32").known("shape")
    assert set(found) == {(n, k) for n in range(1, 4) for k in range(6)}
    assert not list(tmp_path.rglob("*.tmp"))


def hold(cache, mark):
    with timings(cache, STATE, "fp32").alone():
        mark.write_text("held")
        time.sleep(600)


def test_a_killed_run_blocks_nobody(tmp_path):
    pytest.importorskip("fcntl")
    run = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, tmp_path / "mark"))
    run.start()
    while not (tmp_path / "mark").exists():
        assert run.is_alive()
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    with timings(tmp_path, STATE, "fp32").alone():
        pass


@pytest.mark.parametrize("use", [lambda t: t.keep("shape", POINTS), lambda t: t.alone().__enter__()])
def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path, use):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write layer timings") as caught:
        use(timings(tmp_path / "file", STATE, "fp32"))
    assert "EDGEFIT_CACHE" in caught.value.hint
