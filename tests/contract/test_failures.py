"""What goes wrong on the way to a device and on it, over a real sshd and a real adbd.

Each ends in one line and exit code 6, or in a complete result. Nothing is left running or set there, and
there is no figure that was not measured.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from targets._shared import distant, remote
from tests.boards import beside
from tests.runners import library, small_onnx
from toolchain import benching, cli
from toolchain.contracts import BenchSettings, Silent, Tier
from toolchain.errors import DeviceError

SHORT = Tier(name="rapid", runs=16, seconds=0.4, trials=2)
LONG = Tier(name="quick", runs=16, seconds=3.0, trials=2)
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["board", "phone"])
def device(request, monkeypatch):
    """The same tests over both routes; nobody waits minutes for a link."""
    monkeypatch.setitem(benching.TIERS, "rapid", SHORT)
    monkeypatch.setitem(benching.TIERS, "quick", LONG)
    monkeypatch.setattr(distant, "PATIENCE_SECONDS", 15.0)
    return request.getfixturevalue(request.param)


@pytest.fixture
def model(device, tmp_path):
    return small_onnx(tmp_path / "a.onnx")


def bench(device, model, capfd, tier="rapid"):
    words = ["bench", str(model), "--device", device.name, "--tier", tier, "--runtime", "onnxruntime"]
    code = cli.main([*words, "--json", "--quiet"])
    return code, *capfd.readouterr()


def measured(device, model, capfd, tier="rapid"):
    """A complete result came out."""
    code, out, err = bench(device, model, capfd, tier)
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record["device"] == device.name
    timing = record["models"][0]["timing"]
    assert len(timing["samples_ms"]) == benching.TIERS[tier].trials
    assert 0 < timing["min_ms"] <= timing["p50"]["value"]
    return record


def refused(device, model, capfd, *said, tier="rapid"):
    """One line, an error's exit code, no figure; what stands in the hint is returned."""
    code, out, err = bench(device, model, capfd, tier)
    assert (code, out) == (6, "")
    line, _, hint = err.strip().partition("\n")
    assert line.startswith("error: ")
    assert all(word in line for word in said), line
    assert "\n" not in hint
    return hint


def process(device, model, seconds):
    """A measurement by another process, in a group of its own as in a terminal."""
    script = f"""
        from pathlib import Path
        from toolchain import benching
        from toolchain.contracts import BenchSettings, Silent, Tier
        connection = benching.connect({device.name!r})
        file = benching._given(Path({str(model)!r}), connection.runtimes)
        tier = Tier(name="t", runs=16, seconds={seconds}, trials=2)
        connection.bench([file], BenchSettings(tier=tier), Silent())
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    found = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    stop = time.monotonic() + 60
    while not device.begun():
        assert time.monotonic() < stop
        time.sleep(0.02)
    return found


def again(device, model, seconds):
    """What `process` measures, by this one."""
    connection = device.open()
    file = benching._given(model, connection.runtimes)
    tier = Tier(name="t", runs=16, seconds=seconds, trials=2)
    return connection.bench([file], BenchSettings(tier=tier), Silent())


def test_a_link_that_is_cut_is_made_again_and_the_run_goes_on(device, model, capfd):
    with beside(device.begun, device.cut):
        measured(device, model, capfd, "quick")
    assert device.left() == []


def test_a_link_that_is_cut_while_a_file_is_sent_is_made_again(device, model, capfd):
    with beside(lambda: list(device.folder.glob("files/*.partial")), device.cut):
        measured(device, model, capfd)
    assert not list(device.folder.glob("files/*.partial"))
    assert device.left() == []


@pytest.mark.slow
def test_a_link_that_stays_away_is_told_and_the_same_command_fetches_the_run(
    device, model, capfd, monkeypatch
):
    with monkeypatch.context() as patch, beside(device.begun, device.away):
        patch.setattr(distant, "PATIENCE_SECONDS", 0.5)
        hint = refused(device, model, capfd, f"the link to {device.name} is lost", tier="quick")
    assert "the same command fetches it" in hint
    device.back()
    commands, run = [], device.shell.run

    def listening(shell, command, **more):
        commands.append(command)
        return run(shell, command, **more)

    monkeypatch.setattr(device.shell, "run", listening)
    measured(device, model, capfd, "quick")
    assert commands
    assert not any("guard.sh" in command for command in commands)  # nothing was started
    assert device.left() == []


def test_a_runner_that_is_killed_is_no_result(device, model, capfd):
    with beside(device.begun, lambda: os.kill(device.runner(), signal.SIGKILL)):
        refused(device, model, capfd, "ended without a result", tier="quick")
    assert device.left() == []


@pytest.mark.slow
def test_a_device_that_starts_anew_is_no_result(device, model, capfd):
    """Runner and guard are killed, and the link breaks; what was set is put back by who comes next."""

    def restart():
        for pid in (device.guard(), device.runner()):
            os.kill(pid, signal.SIGKILL)
        device.cut()

    with beside(device.begun, restart):
        refused(device, model, capfd, "ended without a result", tier="quick")
    assert device.left() == []


def test_a_disk_that_is_full_takes_nothing(device, model, capfd):
    device.space.change("mount -t tmpfs -o size=100k none root")
    refused(device, model, capfd, "cannot send", "No space left on device")
    assert not any(name.endswith(".partial") for name in device.sent())
    assert device.left() == []


def test_a_disk_that_fills_while_it_measures_is_no_result(device, model, capfd):
    device.space.change("mount -t tmpfs -o size=150m none root")

    def fill():
        with contextlib.suppress(OSError), device.space.inside("/root/full").open("wb", 0) as out:
            while out.write(bytes(2**16)):
                continue

    with beside(device.begun, fill):
        refused(device, model, capfd, "No space left on device", tier="quick")
    assert device.left() == []


def test_a_root_that_cannot_be_written_is_passed_over(device, model, capfd):
    """Only memory is left: the whole measurement goes through /tmp."""
    device.space.change("mount -o remount,bind,ro root")
    measured(device, model, capfd)
    assert not device.folder.exists()
    assert list(device.space.inside("/tmp/edgefit/runs").iterdir()) == []
    device.space.change("for folder in dev/shm tmp; do mount -t tmpfs -o ro none $folder; done")
    refused(device, model, capfd, "has no folder that can be written and run from")


@pytest.mark.slow
def test_busybox_is_enough(device, model, capfd):
    device.space.busybox()
    with beside(device.begun, device.cut):
        measured(device, model, capfd, "quick")
    with beside(device.begun, lambda: os.kill(device.runner(), signal.SIGKILL)):
        refused(device, model, capfd, "ended without a result", tier="quick")
    assert device.left() == []


@pytest.mark.parametrize(
    ("machine", "said"),
    [("Linux mips", "is Linux mips: there is no runner"), ("Darwin arm64", "is Darwin arm64")],
)
def test_a_device_of_another_kind_is_refused(device, model, capfd, machine, said):
    device.program("uname", f"echo {machine}\n")
    assert "runners are built for" in refused(device, model, capfd, said)
    assert device.sent() == {}


def test_a_kind_that_is_not_what_it_says_is_refused(device, model, capfd, monkeypatch):
    """A runner for another processor: its first bytes say so."""
    other = bytearray((remote.runner("")).read_bytes())
    other[18] ^= 0xFF  # e_machine
    path = device.test / "other"
    path.write_bytes(other)
    monkeypatch.setattr(remote, "runner", lambda arch: path)
    assert "glibc" in refused(device, model, capfd, f"the runner does not run on {device.name}")
    assert device.left() == []


def test_a_processor_that_no_library_is_made_for_is_refused(device, model, capfd, monkeypatch):
    """armv7: nothing on the index; here the index is an empty folder, and the runner that of this machine."""
    here = remote.runner("")
    device.program("uname", "echo Linux armv7l\n")
    monkeypatch.setattr(remote, "runner", lambda arch: here)
    monkeypatch.setenv("EDGEFIT_CACHE", str(device.test / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    refused(device, model, capfd, "for armv7l")
    assert device.left() == []


def test_a_library_that_needs_what_is_not_there_is_refused_and_not_kept(device, model, capfd, monkeypatch):
    known = library("onnxruntime")
    needed, path = device.test / "needed.so", device.test / "given.so"
    empty = ["cc", "-shared", "-x", "c", "/dev/null"]
    subprocess.run([*empty, "-o", needed], check=True)
    subprocess.run([*empty, "-x", "none", "-Wl,--no-as-needed", needed, "-o", path], check=True)
    broken = replace(known, path=str(path), sha256=remote.content_hash(path))
    with monkeypatch.context() as patch:
        patch.setattr(remote, "installed_library", lambda runtime: broken)
        refused(device, model, capfd, "needed.so", "No such file")
    assert broken.sha256 not in device.sent()
    assert device.left() == []
    measured(device, model, capfd)


@pytest.mark.slow
def test_files_that_went_or_rotted_on_the_device_are_sent_anew(device, model, capfd):
    measured(device, model, capfd)
    size = {file: file.stat().st_size for file in device.folder.glob("files/*")}
    biggest = max(size, key=size.get)
    biggest.unlink()
    measured(device, model, capfd)
    content = biggest.read_bytes()
    biggest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(device, model, capfd, "that was asked for")
    assert not biggest.exists()
    measured(device, model, capfd)


@pytest.mark.parametrize("content", [b"", b"not a model at all", None])
def test_a_corrupt_model_is_refused_and_not_kept(device, model, capfd, content):
    model.write_bytes(model.read_bytes()[:-40] if content is None else content)
    refused(device, model, capfd, f"measuring on {device.name} failed")
    assert benching.content_hash(model) not in device.sent()
    assert device.left() == []


@pytest.mark.slow
def test_of_two_at_once_the_second_is_refused_and_the_first_complete(device, model, capfd):
    other = small_onnx(device.test / "b.onnx", 8)
    first = process(device, model, 4.0)
    refused(device, other, capfd, "another measurement is running on this device")
    assert first.wait(timeout=60) == 0
    assert device.left() == []


def test_ctrl_c_ends_the_run_on_the_device(device, model):
    """As in a terminal: every process of the group gets it, the client's own helpers too."""
    running = process(device, model, 600.0)
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=60) != 0
    assert device.left() == []


@pytest.mark.slow
def test_what_is_killed_here_goes_on_there_and_the_same_command_fetches_it(device, model):
    running = process(device, model, 3.0)
    runner = device.runner()
    os.killpg(running.pid, signal.SIGKILL)
    running.wait(timeout=60)
    assert device.runner() == runner
    assert len(again(device, model, 3.0).records) == 2
    assert device.left() == []


@pytest.mark.slow
def test_the_same_command_twice_at_once_is_one_measurement(device, model):
    """Whoever is first takes the result; the other one has it, too, or is told."""
    first, said = process(device, model, 3.0), None
    try:
        assert len(again(device, model, 3.0).records) == 2
    except DeviceError as error:
        said = error.message
    assert first.wait(timeout=60) == 0 or said is None
    assert said is None or any(word in said for word in ("was removed while it ran", "cannot fetch"))
    assert device.left() == []
