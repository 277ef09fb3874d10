"""A real adb against a real adbd in a place of its own, and what only other devices answer.

The device is this machine, no phone: `dumpsys` and `cmd` are scripts. What goes wrong over any route is in
test_failures.py.
"""

import os
import subprocess
import time
from dataclasses import replace

import pytest

from targets._routes import adb
from targets._routes.adb import _open, by_speed
from targets._shared.settings import Settings
from tests.boards import beside
from tests.phones import SERIAL, Phone, answering
from tests.runners import CONVOLUTION, small_onnx
from tests.spaces import Space
from toolchain import benching
from toolchain.contracts import BenchSettings, Silent, Tier
from toolchain.doctor import devices
from toolchain.errors import DeviceError

TIER = Tier(name="t", runs=16, seconds=0.4, trials=2)
SHORT = BenchSettings(tier=TIER)
FIXED = Settings(fixed_performance=True)
LONG = BenchSettings(tier=replace(TIER, seconds=3.0))


@pytest.fixture
def model(phone, tmp_path):
    return benching._given(small_onnx(tmp_path / "a.onnx"), benching.connect("host").runtimes)


def test_the_whole_bench_goes_over_adb(phone, model):
    found = _open(SERIAL).bench([model], SHORT, Silent())
    assert found.device == f"adb:{SERIAL}"
    assert [(r["trial"], r["model"]) for r in found.records] == [(0, 0), (1, 0)]
    assert found.before["battery_level"] == found.after["battery_level"] == 80
    assert found.before["battery_celsius"] == pytest.approx(30.5)
    assert found.before["thermal_status"] == 0
    assert phone.left() == []
    (checked,) = _open(SERIAL).check([model], Silent())
    assert checked.parity["max_relative"] == 0.0  # the same processor
    assert phone.left() == []


def test_a_low_battery_is_refused_and_heat_waited_for(phone, model):
    phone.battery("  level: 12\n")
    with pytest.raises(DeviceError, match="has 12 %, 20 % are needed"):
        _open(SERIAL).bench([model], SHORT, Silent())
    phone.battery("  level: 90\n")
    phone.heat(3)
    waited = []

    def cool(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            phone.heat(1)

    found = replace(_open(SERIAL), sleep=cool).bench([model], SHORT, Silent())
    assert len(waited) == 2
    assert found.before["thermal_status"] == 1
    assert found.before["battery_celsius"] is None


def test_a_phone_that_stays_hot_is_refused(phone, model, monkeypatch):
    monkeypatch.setattr(adb, "COOL_SECONDS", 0.0)
    phone.heat(4)
    with pytest.raises(DeviceError, match="stays hot: thermal status 4") as caught:
        replace(_open(SERIAL), sleep=lambda seconds: None).bench([model], SHORT, Silent())
    assert "cool" in caught.value.hint
    assert not phone.folder.exists()


def test_a_phone_is_cool_before_each_measurement_that_a_plan_needs(phone, model):
    """But its state can be asked for whatever it is: a bench that made it hot is no loss."""
    device = _open(SERIAL).device()
    phone.battery("  level: 12\n")
    assert device.conditions(benching.connect("host").runtimes[0], 1).device == f"adb:{SERIAL}"
    with pytest.raises(DeviceError, match="has 12 %"):
        device.probe(
            benching.connect("host").runtimes[0], "fp32", [CONVOLUTION], threads=1, progress=Silent()
        )
    assert phone.left() == []


def fixed(phone, then, settings=LONG):
    """What the mode for measuring was when the first record was written, and what `then` ended with."""
    device = replace(_open(SERIAL), patience_seconds=0.5, settings=FIXED)
    model = benching._given(small_onnx(phone.test / "b.onnx"), device.runtimes)
    seen, failed = [], None

    def look():
        seen.append(phone.fixed.read_text())
        then()

    with beside(phone.begun, look):
        try:
            device.bench([model], settings, Silent())
        except DeviceError as error:
            failed = error.message
    return seen, failed


@pytest.mark.parametrize("end", ["well", "killed", "away"])
def test_the_mode_for_measuring_is_switched_off_however_it_ends(phone, end):
    ends = {"well": lambda: None, "killed": lambda: os.kill(phone.runner(), 9), "away": phone.away}
    seen, failed = fixed(phone, ends[end], SHORT if end == "well" else LONG)
    assert seen == ["true\n"]
    expected = {"well": None, "killed": "ended without a result", "away": f"the link to adb:{SERIAL} is lost"}
    assert (failed is None) if end == "well" else (expected[end] in failed)
    stop = time.monotonic() + 60
    while (phone.folder / "settings").exists() and time.monotonic() < stop:
        time.sleep(0.1)
    assert phone.fixed.read_text() == "false\n"


@pytest.fixture
def cores(phone, monkeypatch):
    """Four cores, the first two of which there are: a made-up folder in the place of /sys."""
    for core, capacity in enumerate((1024, 700, 300, 300)):
        folder = phone.test / f"sys/devices/system/cpu/cpu{core}"
        folder.mkdir(parents=True)
        (folder / "cpu_capacity").write_text(f"{capacity}\n")
    if not {0, 1} <= os.sched_getaffinity(0):
        pytest.skip("this machine has no two cores for it")
    monkeypatch.setattr(adb, "settings_of", lambda name: Settings(sysfs="/mnt/sys"))
    return phone.test / "sys/devices/system/cpu"


@pytest.mark.parametrize(("threads", "kept"), [(1, [0]), (2, [0, 1])])
def test_threads_are_kept_on_the_fastest_cores(phone, model, cores, threads, kept):
    device = _open(SERIAL)
    assert device.settings.cores == (0, 1, 3, 2)
    found = device.bench([model], replace(SHORT, threads=threads), Silent())
    assert found.before["affinity"] == kept


def test_a_core_that_is_off_is_left_out_and_one_that_is_not_there_refused(phone, model, cores):
    (cores / "cpu0/online").write_text("0\n")
    assert _open(SERIAL).settings.cores == (1, 3, 2)
    device = replace(_open(SERIAL), settings=Settings(cores=(1, 1000)))
    with pytest.raises(DeviceError, match="cores 1,1000 cannot be used"):
        device.bench([model], replace(SHORT, threads=2), Silent())


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0 300\n4 700\n7 1024\n", (7, 4, 0)),
        ("0 1800000\n1 1800000\n2 2400000\n3 2400000\n", (3, 2, 1, 0)),
        ("0 1024\n1 1024\n", ()),
        ("0 \n1 \n", ()),
        ("", ()),
    ],
)
def test_cores_are_ordered_by_their_speed(text, cores):
    assert by_speed(text) == cores


def test_it_is_listed_and_a_single_one_needs_no_serial(phone):
    (entry,) = [d for d in devices()["devices"] if d["device"] == f"adb:{SERIAL}"]
    assert entry["missing"] == ""
    assert _open("").shell.serial == SERIAL


def test_a_server_that_is_not_there_yet_is_started(phone, model):
    """What adb then says of it is no answer of the device."""
    subprocess.run(["adb", "kill-server"], check=True, capture_output=True)
    assert _open(SERIAL).bench([model], SHORT, Silent()).records


def test_of_several_devices_the_one_that_is_named_measures(phone, model, tmp_path):
    """Two of them in two networks, joined by a cable."""
    (tmp_path / "second").mkdir()
    place = Space(tmp_path / "second")
    other, serial = Phone(place), "10.77.0.2:5555"
    try:
        phone.space.change(
            f"ip link add near type veth peer name far netns {place.pid}"
            " && ip address add 10.77.0.1/24 dev near && ip link set near up"
        )
        place.change("ip address add 10.77.0.2/24 dev far && ip link set far up")
        answering(serial)
        assert {d["device"] for d in devices()["devices"]} >= {f"adb:{SERIAL}", f"adb:{serial}"}
        with pytest.raises(DeviceError, match="2 devices are connected to adb") as caught:
            _open("")
        assert f"adb:{SERIAL}" in caught.value.hint
        assert f"adb:{serial}" in caught.value.hint
        assert _open(serial).bench([model], SHORT, Silent()).device == f"adb:{serial}"
        assert other.sent()
        assert not phone.sent()
    finally:
        other.end()


def test_what_is_not_there_is_one_line(phone):
    with pytest.raises(DeviceError, match="cannot reach adb:nobody"):
        _open("nobody")


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "let us in", "allow"),
        ("error: device offline", "cannot reach adb:R5CT: error: device offline", "adb devices -l"),
    ],
)
def test_a_phone_that_is_not_ready_is_one_line(answer, said, hint, tmp_path, monkeypatch):
    """In the words of adb: there is no phone to say them."""
    state = answer.split(".")[0].split()[-1]
    listed = f"printf 'List of devices attached\\nR5CT\\t{state}\\n\\n'"
    text = f'#!/bin/sh\n[ $1 = devices ] && {{ {listed}; exit 0; }}\necho "{answer}" >&2\nexit 1\n'
    (tmp_path / "adb").write_text(text.replace("$ADB", "\\$ADB"))
    (tmp_path / "adb").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(DeviceError, match=said) as caught:
        _open("R5CT")
    assert hint in caught.value.hint
    (entry,) = [d for d in devices()["devices"] if d["device"] == "adb:R5CT"]
    assert entry["missing"] == f"a device that is not {state}"


def test_android_needs_a_runner_and_libraries_of_its_own(phone, model, monkeypatch):
    """What a phone of 64 bits says; there is no NDK here to build for it."""
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    monkeypatch.setattr("targets._shared.remote._PROBE", "echo Linux aarch64; echo android; echo /root")
    with pytest.raises(DeviceError, match="there is no NDK") as caught:
        _open(SERIAL).bench([model], SHORT, Silent())
    assert "ANDROID_NDK_HOME" in caught.value.hint


@pytest.mark.parametrize("rest", ["a b", "-s", "$(reboot)", "a;b", "\n"])
def test_a_serial_that_cannot_be_is_refused(rest):
    with pytest.raises(DeviceError, match="unknown device"):
        _open(rest)
