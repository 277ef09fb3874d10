"""What is set on a device is put back: after the run, after a failure, after a kill, without a link.

The shell, the sshd and the processes are real. The kernel's files are a folder of plain files that takes
their place; nvpmodel, jetson_clocks and tegrastats are scripts that answer as a Jetson's do: there is none.
"""

import os
import shutil
import signal
import time
from dataclasses import replace

import pytest

from targets._routes.ssh import _open
from targets._shared.settings import Settings, settings_of
from targets._shared.tegra import watched
from tests.boards import beside
from tests.contract.test_ssh import SHORT
from tests.runners import small_onnx
from toolchain import benching
from toolchain.contracts import BenchSettings, Silent
from toolchain.errors import DeviceError, InputError

LONG = BenchSettings(tier=replace(SHORT.tier, seconds=3.0))
SAID = "RAM 2/7 VDD_IN 5000mW/4000mW VDD_CPU 700mW/650mW cpu@45.5C gpu@-256C\n"
JETSON = {
    "nvpmodel": """
        case $1 in
            -q) echo "NV Power Mode: 15W"; cat {state}/mode;;
            -m) echo "$2" > {state}/mode;;
        esac""",
    "jetson_clocks": """
        case $1 in
            --store) cp {state}/clocks "$2";;
            --restore) cp "$2" {state}/clocks;;
            *) echo max > {state}/clocks;;
        esac""",
    "tegrastats": """while :; do printf '""" + SAID.strip() + """\\n'; sleep 0.1; done""",
}


class Kernel:
    """A folder in the place of /sys, and what a Jetson's commands change."""

    def __init__(self, root):
        self.root, self.state = root / "sys", root / "state"
        for core, governor in ((0, "ondemand"), (1, "schedutil")):
            folder = self.root / f"devices/system/cpu/cpu{core}/cpufreq"
            folder.mkdir(parents=True)
            (folder / "scaling_governor").write_text(governor + "\n")
            (folder / "scaling_min_freq").write_text("200000\n")
            (folder / "scaling_max_freq").write_text("1800000\n")
        self.state.mkdir()
        (self.state / "mode").write_text("2\n")
        (self.state / "clocks").write_text("low\n")

    def values(self):
        files = [*self.root.rglob("scaling_*"), *self.state.iterdir()]
        return {str(f.relative_to(self.root.parent)): f.read_text().strip() for f in files}


@pytest.fixture
def kernel(board, tmp_path):
    kernel = Kernel(tmp_path)
    for name, text in JETSON.items():
        board.program(name, text.format(state="/mnt/state") + "\n")
    return kernel


@pytest.fixture
def model(board, tmp_path):
    return benching._given(small_onnx(tmp_path / "a.onnx"), benching.connect("host").runtimes)


ALL = Settings(governor="performance", mhz=1200, power_mode=0, jetson_clocks=True)


def device(kernel, settings=ALL):
    return replace(_open("//board"), settings=replace(settings, sysfs="/mnt/sys"))


def is_set(values):
    governors = {v for k, v in values.items() if k.endswith("governor")}
    clocks = {v for k, v in values.items() if k.endswith("freq")}
    jetson = values["state/mode"], values["state/clocks"]
    return (governors, clocks, jetson) == ({"performance"}, {"1200000"}, ("0", "max"))


def put_back(kernel, before, seconds=30):
    stop = time.monotonic() + seconds
    while kernel.values() != before and time.monotonic() < stop:
        time.sleep(0.1)
    return kernel.values() == before


@pytest.mark.parametrize("userland", ["debian", "busybox"])
def test_everything_is_set_while_it_measures_and_put_back(userland, board, kernel, model):
    if userland == "busybox":
        board.space.busybox()
    before, seen = kernel.values(), []
    with beside(board.begun, lambda: seen.append(kernel.values())):
        found = device(kernel).bench([model], SHORT, Silent())
    assert is_set(seen[0])
    assert kernel.values() == before
    assert board.left() == []
    power = found.after["tegrastats"]
    assert power["mean_mw"] == {"VDD_IN": 5000.0, "VDD_CPU": 700.0}
    assert power["highest_celsius"] == {"cpu": 45.5}


def test_a_board_without_a_jetsons_commands_has_no_power(board, model):
    assert "tegrastats" not in _open("//board").bench([model], SHORT, Silent()).after


def test_they_are_put_back_when_the_runner_is_killed(board, kernel, model):
    before = kernel.values()
    killed = beside(board.begun, lambda: os.kill(board.runner(), signal.SIGKILL))
    with killed, pytest.raises(DeviceError, match="ended without a result"):
        device(kernel).bench([model], LONG, Silent())
    assert put_back(kernel, before)
    assert board.left() == []


def test_they_are_put_back_without_the_link(board, kernel, model):
    before, seen = kernel.values(), []

    def away():
        seen.append(kernel.values())
        board.away()

    with beside(board.begun, away), pytest.raises(DeviceError, match="is lost"):
        replace(device(kernel), patience_seconds=0.5).bench([model], LONG, Silent())
    assert is_set(seen[0])
    assert put_back(kernel, before)


@pytest.mark.slow
def test_what_a_killed_guard_has_left_is_put_back_by_the_next_connection(board, kernel, model):
    before = kernel.values()

    def kill():
        for pid in (board.guard(), board.runner()):
            os.kill(pid, signal.SIGKILL)

    with beside(board.begun, kill), pytest.raises(DeviceError):
        device(kernel).bench([model], LONG, Silent())
    if (board.folder / "settings").exists():  # the link was asked before it happened
        assert is_set(kernel.values())
    device(kernel, Settings()).bench([model], SHORT, Silent())
    assert kernel.values() == before
    assert board.left() == []


def test_what_may_not_be_set_is_told_and_the_rest_put_back(board, kernel, model):
    (kernel.root.parent / "bin/jetson_clocks").write_text("#!/bin/sh\nexit 1\n")
    before = kernel.values()
    with pytest.raises(DeviceError, match="jetson_clocks cannot be set"):
        device(kernel).bench([model], SHORT, Silent())
    assert kernel.values() == before
    for folder in kernel.root.rglob("cpufreq"):
        shutil.rmtree(folder)
    with pytest.raises(DeviceError, match="governor cannot be set"):
        device(kernel, Settings(governor="performance")).bench([model], SHORT, Silent())
    assert board.left() == []


def test_a_device_that_another_measurement_has_set_is_refused(board, kernel, model):
    before = kernel.values()
    caught = []

    def second():
        try:
            device(kernel, Settings(governor="powersave")).bench([model], SHORT, Silent())
        except DeviceError as error:
            caught.append(error.message)

    with beside(board.begun, second):
        device(kernel).bench([model], LONG, Silent())
    assert "another measurement is running" in caught[0]
    assert kernel.values() == before


def test_settings_are_read_by_the_devices_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert settings_of("ssh://pi@board") == Settings()
    (tmp_path / "config/edgefit").mkdir(parents=True)
    home = tmp_path / "config/edgefit/devices.toml"
    home.write_text(
        '[devices."ssh://pi@board"]\ngovernor = "performance"\nmhz = 1200\ncore = 3\ncores = [3, 2]\n'
    )
    asked = Settings(governor="performance", mhz=1200, core=3, cores=(3, 2))
    assert settings_of("ssh://pi@board") == asked
    assert settings_of("ssh://other") == Settings()
    (tmp_path / "edgefit.toml").write_text('[devices."ssh://pi@board"]\njetson_clocks = true\n')
    assert settings_of("ssh://pi@board") == Settings(jetson_clocks=True)
    for text in (
        "governor = 3",
        "core = true",
        "cores = 3",
        "cores = [true]",
        "cores = [-1]",
        "sysfs = '/x'",
        "password = 'x'",
    ):
        (tmp_path / "edgefit.toml").write_text(f'[devices."ssh://pi@board"]\n{text}\n')
        with pytest.raises(InputError, match="is no setting of"):
            settings_of("ssh://pi@board")
    (tmp_path / "edgefit.toml").write_text("[devices\n")
    with pytest.raises(InputError, match="cannot be read"):
        settings_of("ssh://pi@board")


def test_what_is_set_is_part_of_the_conditions():
    assert ALL.said("ondemand") == "performance, nvpmodel 0, jetson_clocks"
    assert Settings().said("ondemand") == "ondemand"
    assert Settings().said(None) is None


def test_tegrastats_of_older_releases_is_read_too():
    found = watched(b"POM_5V_IN 2000/2000 POM_5V_CPU 400/400 CPU@40C\nPOM_5V_IN 4000/3000 CPU@42.5C\n")
    assert found["mean_mw"]["POM_5V_IN"] == 3000
    assert found["highest_celsius"] == {"CPU": 42.5}
    assert watched(b"") == {"lines": 0, "mean_mw": {}, "highest_celsius": {}}
