"""A real sshd, started by the client's ProxyCommand in its own network namespace: nothing listens anywhere.

Every way it can go wrong ends in one clear line or in a complete result, and leaves nothing running.
"""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from targets._routes.ssh import SshShell, _open
from targets._shared import remote
from tests.boards import serve
from tests.runners import CONVOLUTION, library, small_onnx, small_tflite
from toolchain import benching
from toolchain.contracts import BenchSettings, Silent, Tier
from toolchain.errors import DeviceError

SHORT = BenchSettings(tier=Tier(name="t", runs=16, seconds=0.4, trials=2))
LONG = BenchSettings(tier=Tier(name="t", runs=16, seconds=4.0, trials=2))


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
    sent = {file: file.stat().st_mtime_ns for file in board.folder.glob("files/*")}
    assert len(sent) == 5
    bench([model])
    assert {file: file.stat().st_mtime_ns for file in board.folder.glob("files/*")} == sent


def when(true, then):
    """Do something beside the test, as soon as it is time."""

    def wait():
        stop = time.monotonic() + 60
        while time.monotonic() < stop:
            if true():
                then()
                return
            time.sleep(0.05)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_link_that_is_cut_is_made_again_and_the_run_goes_on(board, model):
    thread = when(lambda: board.samples() and "begin" in board.samples().read_text(), board.cut)
    found = bench([model], LONG)
    thread.join()
    assert len(found.records) == 2
    assert len(board.connections()) >= 2
    assert board.left() == []


def test_a_link_that_stays_away_leaves_the_run_to_the_next_call(board, model):
    def away():
        serve(board, "exit 1")
        board.cut()

    good = (board.root / "serve").read_text().splitlines()[-1]
    device = _open("//board")
    device = replace(device, patience_seconds=0.5)
    thread = when(lambda: board.samples() and "begin" in board.samples().read_text(), away)
    with pytest.raises(DeviceError, match="the link to ssh://board is lost") as caught:
        device.bench([model], LONG, Silent())
    thread.join()
    assert "the same command fetches it" in caught.value.hint
    pid = board.runner()
    serve(board, good)
    found = bench([model], LONG)
    assert found.records
    assert pid is not None
    assert board.left() == []


def test_a_runner_that_is_killed_is_no_result(board, model):
    when(
        lambda: board.samples() and "begin" in board.samples().read_text(),
        lambda: os.kill(board.runner(), signal.SIGKILL),
    )
    with pytest.raises(DeviceError, match="ended without a result"):
        bench([model], LONG)
    assert board.left() == []


def test_ctrl_c_ends_the_run_on_the_device(board, model):
    script = f"""
        from pathlib import Path
        from targets._routes.ssh import _open
        from toolchain.contracts import BenchSettings, ModelFile, Silent, Tier
        tier = Tier(name="t", runs=16, seconds=600.0, trials=2)
        file = ModelFile(path=Path({str(model.path)!r}), runtime="onnxruntime", sha256={model.sha256!r})
        _open("//board").bench([file], BenchSettings(tier=tier), Silent())
    """
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment, stderr=-3)
    stop = time.monotonic() + 60
    while not (board.samples() and "begin" in board.samples().read_text()) and time.monotonic() < stop:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert board.left() == []


def test_two_at_once_are_refused(board, model):
    bench([model])
    with (board.folder / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeviceError, match="another measurement is running on this device"):
            bench([model])
    assert board.left() == []


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


def test_a_host_that_does_not_answer_is_told_so(board, model):
    serve(board, "exit 1")
    with pytest.raises(DeviceError, match="cannot reach ssh://board"):
        bench([model])


@pytest.mark.parametrize(
    ("said", "expected"),
    [("Linux mips", "is Linux mips: there is no runner"), ("Darwin arm64", "is Darwin arm64")],
)
def test_a_device_of_another_kind_is_refused(board, model, tmp_path, said, expected):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uname").write_text(f"#!/bin/sh\necho {said}\n")
    (tmp_path / "bin/uname").chmod(0o700)
    with pytest.raises(DeviceError, match=expected):
        bench([model])


def test_a_full_disk_is_told_and_nothing_is_left(board, model):
    """The device's home folder is a file system of 100 kB."""
    command = (board.root / "serve").read_text().splitlines()[-1].removeprefix("exec unshare --net ")
    mount = f"mount -t tmpfs -o size=100k none {board.home} && exec {command}"
    serve(board, f"exec unshare --net --mount sh -c '{mount}'")
    with pytest.raises(DeviceError, match=r"cannot send .*No space left on device"):
        bench([model])


def test_a_home_that_cannot_be_written_is_passed_over(board, model):
    """A read-only root: the next place that takes programs is used, and named in the job."""
    shell = SshShell(host="board")
    shell.connect()
    board.home.rmdir()
    board.home.write_text("not a folder")
    place = remote._probe(shell)
    shell.close()
    assert place.folder in ("/var/tmp/edgefit", "/tmp/edgefit", "/dev/shm/edgefit")
    with contextlib.suppress(OSError):  # not empty: somebody else's
        for folder in ("files", "runs", "."):
            (Path(place.folder) / folder).rmdir()


@pytest.mark.parametrize("content", [b"", b"not a model at all"])
def test_a_corrupt_model_is_one_line(board, model, tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    file = benching._given(tmp_path / "bad.onnx", benching.connect("host").runtimes)
    with pytest.raises(DeviceError, match="measuring on ssh://board failed") as caught:
        bench([file])
    assert "\n" not in caught.value.message
    assert board.left() == []


def test_a_runner_that_cannot_start_is_told_so(board, model, monkeypatch, tmp_path):
    (tmp_path / "broken").write_text("#!/no/such/interpreter\n")
    monkeypatch.setattr(remote, "runner", lambda arch: tmp_path / "broken")
    with pytest.raises(DeviceError, match="the runner does not run on ssh://board") as caught:
        bench([model])
    assert "glibc" in caught.value.hint


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
            remote._fetch(shell, str(run))
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
    assert len(list(board.folder.glob("files/*"))) == 2  # the runner and the library


def test_outputs_there_are_those_of_here(board, model, tmp_path):
    tflite = benching._given(small_tflite(tmp_path / "b.tflite"), benching.connect("host").runtimes)
    found = _open("//board").check([model, tflite], Silent())
    assert [checked.parity["max_relative"] for checked in found] == [0.0, 0.0]  # the same processor
    assert board.left() == []
