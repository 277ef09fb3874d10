"""A real sshd, started by the client's ProxyCommand in a place of its own: nothing listens anywhere.

What goes wrong over any route is in test_failures.py.
"""

import json
import os
import re
from dataclasses import replace

import pytest

from targets._routes.ssh import SshShell, _open
from targets._shared import remote
from tests.runners import CONVOLUTION, library, small_onnx, small_tflite
from toolchain import benching
from toolchain.contracts import BenchSettings, Silent, Tier
from toolchain.errors import DeviceError

SHORT = BenchSettings(tier=Tier(name="t", runs=16, seconds=0.4, trials=2))


@pytest.fixture
def model(board, tmp_path):
    return benching._given(small_onnx(tmp_path / "a.onnx"), benching.connect("host").runtimes)


def bench(files, settings=SHORT):
    return _open("//board").bench(files, settings, Silent())


def test_the_whole_bench_goes_over_ssh(board, model, tmp_path):
    tflite = benching._given(small_tflite(tmp_path / "b.tflite"), benching.connect("host").runtimes)
    found = bench([model, tflite])
    assert found.device == "ssh://board"
    assert found.versions == {runtime: library(runtime).version for runtime in ("litert", "onnxruntime")}
    assert [(r["trial"], r["model"]) for r in found.records] == [(0, 0), (0, 1), (1, 1), (1, 0)]
    assert all(benching.timing([r for r in found.records if r["model"] == k], SHORT.tier) for k in (0, 1))
    assert found.before["machine"] == found.after["machine"] == os.uname().machine
    assert board.left() == []
    sent = board.sent()
    assert len(sent) == 5
    bench([model])
    assert board.sent() == sent


def test_a_host_key_that_is_not_known_is_refused(board, model, tmp_path):
    known = tmp_path / "home/.ssh/known_hosts"
    other = (tmp_path / "other.pub").read_text().split()
    for text in (f"board {other[0]} {other[1]}\n", ""):
        known.write_text(text)
        with pytest.raises(DeviceError, match="host key") as caught:
            bench([model])
        assert caught.value.hint
    known.unlink()
    with pytest.raises(DeviceError, match="host key"):
        bench([model])
    assert not board.folder.exists()


def test_who_is_not_let_in_is_told_so(board, model, tmp_path):
    (tmp_path / "authorized").write_text((tmp_path / "other.pub").read_text())
    with pytest.raises(DeviceError, match="does not let us in"):
        bench([model])


def test_a_host_that_does_not_answer_is_told_so(board, model, tmp_path):
    (tmp_path / "serve").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(DeviceError, match="cannot reach ssh://board"):
        bench([model])


@pytest.mark.parametrize(
    "rest", ["", "board", "//", "//a/b", "//a:b", "//u:secret@a", "//a?x", "//a b", "//a:99999"]
)
def test_a_device_that_is_written_wrong_is_refused(rest):
    with pytest.raises(DeviceError, match="unknown device") as caught:
        _open(rest)
    assert "ssh://USER@HOST" in caught.value.hint


def test_samples_that_do_not_match_the_result_are_refused(board):
    shell = SshShell(host="board")
    shell.connect()
    run = board.home / "run"
    run.mkdir()
    good = {"status": "complete", "records": 1, "error": None}
    lines = [{"type": "begin"}, {"type": "trial"}, {"type": "end", "records": 1}]
    for result, records, expected in (
        ("{", lines, "cannot be read"),
        (json.dumps({**good, "status": "failed", "error": "too hot"}), lines, "failed: too hot"),
        (json.dumps(good), lines[:2], "not complete"),
        (json.dumps({**good, "records": 2}), lines, "not complete"),
        (json.dumps(good), [], "cannot be read"),
    ):
        (run / "result.json").write_text(result)
        (run / "samples.ndjson").write_text("".join(json.dumps(line) + "\n" for line in records))
        with pytest.raises(DeviceError, match=expected):
            remote._fetch(shell, "/root/run")
    shell.close()
    assert re.fullmatch(r"ssh://board", shell.name)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_layers_are_timed_on_the_device(board, runtime):
    """Sixteen times the work takes longer, what cannot be written is None, and nothing is left there."""
    library(runtime)
    wide = replace(CONVOLUTION, in_channels=128, out_channels=128)
    four = dict.fromkeys(("kernel", "stride", "padding", "dilation"), (1,) * 4)
    odd = replace(CONVOLUTION, input_size=(4,) * 4, output_size=(4,) * 4, **four)
    connection = _open("//board")
    known = next(r for r in connection.runtimes if r.name == runtime)
    device = connection.device()
    times = device.probe(known, "fp32", [CONVOLUTION, odd, wide], threads=1, progress=Silent())
    connection.shell.close()
    assert times[1] is None
    assert 0 <= times[0] < times[2]
    assert board.left() == []
    assert len(board.sent()) == 2  # the runner and the library


def test_outputs_there_are_those_of_here(board, model, tmp_path):
    tflite = benching._given(small_tflite(tmp_path / "b.tflite"), benching.connect("host").runtimes)
    found = _open("//board").check([model, tflite], Silent())
    assert [checked.parity["max_relative"] for checked in found] == [0.0, 0.0]  # the same processor
    assert board.left() == []
