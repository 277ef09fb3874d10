"""The C runner: what it cannot do is one line and its exit status; whatever ends it leaves no half result."""

import json
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from targets._shared.runner import Job, Model
from tests.runners import BOTH, binary, job_for, library, records, small, small_onnx, start, trials
from toolchain.errors import DeviceError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is not a job file"),
        ("edgefit.job/2\n", "does not begin with edgefit.job/1"),
        ("edgefit.job/1\n", "no model"),
        ("edgefit.job/1\nspeed 3\n", "unknown key 'speed'"),
        ("edgefit.job/1\ntrials\n", "'trials' has no value"),
        ("edgefit.job/1\ntrials 0\n", "'0' is not a value of trials"),
        ("edgefit.job/1\ntrials 3x\n", "'3x' is not a value of trials"),
        ("edgefit.job/1\nseconds nan\n", "'nan' is not a value of seconds"),
        ("edgefit.job/1\npool 17\nmodel litert - /m\n", "pool may be 16 at most"),
        ("edgefit.job/1\nmodel litert -\n", "a model needs"),
        ("edgefit.job/1\nmodel litert - /m\n", "no library for runtime 'litert'"),
        ("edgefit.job/1\nlibrary tensorrt - - /x\nmodel tensorrt - /m\n", "unknown runtime 'tensorrt'"),
    ],
)
def test_an_unusable_job_is_one_line(text: str, expected: str, tmp_path: Path) -> None:
    done = start(text, tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


@BOTH
def test_a_library_that_is_not_the_right_one_is_refused(runtime: str, tmp_path: Path) -> None:
    model, right = small(runtime, tmp_path), library(runtime)
    other = library("litert" if runtime == "onnxruntime" else "onnxruntime")
    (tmp_path / "text.so").write_text("not a library")
    cases = [
        (replace(right, path="/nowhere/lib.so"), "no .* library at /nowhere/lib.so"),
        (replace(right, sha256="0" * 64), "is not the library of"),
        (replace(right, path=other.path, sha256="-", version="-"), "has no|C API"),
        (replace(right, path=str(tmp_path / "text.so"), sha256="-"), "cannot load"),
    ]
    if runtime == "onnxruntime":
        cases.append((replace(right, version="1.2.3"), "is onnxruntime .*, not 1.2.3"))
    for wrong, expected in cases:
        done = start(replace(job_for(runtime, model), libraries=(wrong,)), tmp_path)
        assert done.returncode == 3
        assert re.search(expected, done.stderr)


@BOTH
@pytest.mark.parametrize("content", [b"", b"not a model at all", bytes(range(256)) * 40])
def test_a_corrupt_model_is_one_line(runtime: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(content)
    done = start(job_for(runtime, tmp_path / "bad"), tmp_path)
    assert done.returncode == 4
    last = records(done.stdout)[-1]
    assert last["type"] == "error"
    assert str(tmp_path / "bad") in last["message"]


def test_a_model_that_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "a.onnx")
    job = job_for("onnxruntime", path)
    job = replace(job, models=(replace(job.models[0], sha256="0" * 64),))
    done = start(job, tmp_path)
    assert done.returncode == 4
    assert "its hash differs" in done.stderr


def test_inputs_of_another_size_are_refused(tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "a.onnx")
    (tmp_path / "x").write_bytes(bytes(10))
    done = start(job_for("onnxruntime", path, inputs=str(tmp_path / "x")), tmp_path)
    assert done.returncode == 2
    assert "does not hold one set of the model's inputs" in done.stderr


def test_a_full_disk_is_an_error_not_a_result(tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "a.onnx")
    (tmp_path / "job").write_text(job_for("onnxruntime", path).text())
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [binary(), tmp_path / "job"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 5
    assert "cannot write samples: No space left on device" in done.stderr
    assert start(job_for("onnxruntime", path), tmp_path, "--out", "/nowhere").returncode == 5


def test_results_appear_whole_beside_their_samples(tmp_path: Path) -> None:
    job = job_for("onnxruntime", small_onnx(tmp_path / "a.onnx"), trials=2)
    done = start(job, tmp_path, "--out", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["schema"] == "edgefit.result/1"
    assert (result["status"], result["exit_code"], result["records"]) == ("complete", 0, 2)
    assert len(trials((tmp_path / "samples.ndjson").read_text())) == 2
    failed = start(job_for("onnxruntime", tmp_path / "gone"), tmp_path, "--out", str(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert failed.returncode == result["exit_code"] == 4
    assert (result["status"], result["records"]) == ("failed", 0)
    assert "cannot read" in result["error"]
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly_and_two_at_once_are_refused(number: signal.Signals, tmp_path: Path) -> None:
    job = job_for("onnxruntime", small_onnx(tmp_path / "a.onnx"), trials=100000, most=0, seconds=0.05)
    (tmp_path / "job").write_text(job.text())
    command = [binary(), tmp_path / "job", "--out", tmp_path]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        samples = tmp_path / "samples.ndjson"
        wait_until(lambda: samples.exists() and samples.read_text().count("\n") > 2)
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 6
        assert "another measurement is running" in second.stderr
        first.send_signal(number)
        assert first.wait(timeout=30) == 128 + number
    finally:
        first.kill()
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["exit_code"]) == ("interrupted", 128 + number)
    lines = records(samples.read_text())
    assert lines[-1]["type"] == "error"
    assert len(lines) == result["records"] + 2


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    """So a measurement outlives the link over which it was started."""
    job = job_for("onnxruntime", small_onnx(tmp_path / "a.onnx"), most=0, seconds=1.5)
    (tmp_path / "job").write_text(job.text())
    script = f"trap '' HUP; exec {binary()} {tmp_path}/job --out {tmp_path}"
    process = subprocess.Popen(["/bin/sh", "-c", script], stderr=subprocess.DEVNULL)
    samples = tmp_path / "samples.ndjson"
    wait_until(lambda: samples.exists() and "begin" in samples.read_text())
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "complete"


def test_a_deadline_ends_it(tmp_path: Path) -> None:
    job = job_for("onnxruntime", small_onnx(tmp_path / "a.onnx"), most=0, seconds=300.0, deadline=1.0)
    done = start(job, tmp_path, "--out", str(tmp_path))
    assert done.returncode == 128 + signal.SIGALRM
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["error"]) == ("interrupted", "not done within its deadline")


def test_a_lock_is_held_by_one_measurement_at_a_time(tmp_path: Path) -> None:
    import fcntl

    job = job_for("onnxruntime", small_onnx(tmp_path / "a.onnx"), lock=str(tmp_path / "lock"))
    assert start(job, tmp_path).returncode == 0
    with (tmp_path / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = start(job, tmp_path)
    assert done.returncode == 6
    assert "another measurement is running on this device" in done.stderr
    assert start(job, tmp_path).returncode == 0
    assert start(replace(job, lock="/nowhere/lock"), tmp_path).returncode == 5


def wait_until(true) -> None:
    stop = time.monotonic() + 30
    while not true():
        assert time.monotonic() < stop
        time.sleep(0.02)


def test_a_path_with_a_line_break_is_refused() -> None:
    with pytest.raises(DeviceError, match="line break"):
        Job(libraries=(), models=(Model(runtime="litert", path="/a\nb"),)).text()


def test_names_of_any_kind_arrive_as_valid_json(tmp_path: Path) -> None:
    strange = tmp_path / 'a "b" \\ ü \udcff.onnx'
    done = start(job_for("onnxruntime", strange).text().replace("\udcff", "\x7f"), tmp_path)
    assert done.returncode == 4
    assert 'a "b" \\ ü' in records(done.stdout)[-1]["message"]
