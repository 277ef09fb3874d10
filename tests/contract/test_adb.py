"""A real `adb` against a real adbd in its own network namespace; and a stand-in for adb.

The stand-in runs what `adb shell` is asked for in a shell of this machine. It shows what the route does with
answers, not that adb gives them. The device is this machine, no phone: `dumpsys` and `cmd` are scripts.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from targets._routes import adb
from targets._routes.adb import _open, big_core
from targets._shared.settings import Settings
from tests.boards import Board
from tests.contract.test_ssh import LONG, SHORT, when
from tests.runners import binary, library, small_onnx
from toolchain import benching
from toolchain.contracts import Silent
from toolchain.doctor import devices
from toolchain.errors import DeviceError

SERIAL = "127.0.0.1:5555"
DUMPSYS = """#!/bin/sh
case $1 in
  battery) cat {state}/battery;;
  thermalservice) cat {state}/thermal;;
esac
"""
CMD = '#!/bin/sh\n[ "$1 $2" = "power set-fixed-performance-mode-enabled" ] && echo "$3" > {state}/fixed\n'
STAND_IN = """#!/bin/sh
case "$1 $3" in
  "connect "*) exit 0;;
  "devices "*) printf 'List of devices attached\\n{serial}\\tdevice\\n\\n'; exit 0;;
  "-s get-state")
    [ -f {root}/away ] || [ "$2" != {serial} ] && {{ echo "error: device '$2' not found" >&2; exit 1; }}
    echo device; exit 0;;
  "-s shell") echo $$ >> {root}/connections
    [ -f {root}/away ] && exit 1
    exec 3<&0
    # As the real one: the daemon's death in the middle of a command is no error.
    env HOME={home} PATH={root}/bin:/usr/bin:/bin sh -c "$5" <&3 3<&- & child=$!
    while kill -0 $child 2> /dev/null; do [ -f {root}/cut ] && {{ rm {root}/cut; exit 0; }}; sleep 0.02; done
    wait $child;;
esac
"""


class Phone(Board):
    """A device behind adbd; `cut` ends its daemon, which is started again at once unless it stays `away`."""

    def __init__(self, root):
        super().__init__(root)
        self.state = root / "state"
        self.state.mkdir()
        self.home.mkdir()
        (root / "bin").mkdir()
        (self.state / "battery").write_text(
            "Current Battery Service state:\n  level: 80\n  temperature: 305\n"
        )
        (self.state / "thermal").write_text("IsStatusOverride: false\nThermal Status: 0\n")
        for name, text in (("dumpsys", DUMPSYS), ("cmd", CMD)):
            (root / "bin" / name).write_text(text.format(state=self.state))
            (root / "bin" / name).chmod(0o700)

    def cut(self):
        (self.root / "cut").touch()

    def away(self):
        (self.root / "away").touch()
        self.cut()

    def end(self):
        """Nothing runs but what the test started itself."""


class RealPhone(Phone):
    """adbd in a network and mount namespace: its home and /usr/local/bin are the test's."""

    def __init__(self, root):
        super().__init__(root)
        self.daemon = None
        inside = (
            f"mount --bind {self.home} /root && mount --bind {root}/bin /usr/local/bin && ip link set lo up"
            f" && echo $$ > {root}/space && while :; do sleep 1; done"
        )
        self.space = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", inside])
        stop = time.monotonic() + 20
        while not (root / "space").exists() and time.monotonic() < stop:
            time.sleep(0.02)
        self.enter = ["nsenter", "--net", "--mount", "--target", str(self.space.pid)]
        self.start()

    def start(self):
        log = (self.root / "adbd.log").open("ab")
        self.daemon = subprocess.Popen([*self.enter, shutil.which("adbd")], stdout=log, stderr=log)

    def cut(self):
        self.daemon.kill()
        self.daemon.wait()
        self.start()

    def away(self):
        self.daemon.kill()
        self.daemon.wait()

    def end(self):
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True, timeout=20)
        for process in (self.daemon, self.space):
            process.kill()
            process.wait()

    def left(self):
        """As `Board.left`; programs on the device see its home as /root."""
        found = [str(p) for p in self.folder.glob("runs/*")]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found += (
                    [process.parent.name] if b"/root/.cache/edgefit/files" in process.read_bytes() else []
                )
            except OSError:
                continue
        return found


def permitted():
    done = subprocess.run(["unshare", "--net", "--mount", "true"], check=False, capture_output=True)
    return os.getuid() == 0 and done.returncode == 0


def real_phone(root):
    """A phone behind the real programs, and the client that reaches it."""
    client = shutil.which("adb")
    if client is None or shutil.which("adbd") is None:
        pytest.skip("no adb and adbd: apt-get install adb adbd (Debian 13)")
    if not permitted():
        pytest.skip("network namespaces are not permitted here")
    phone = RealPhone(root)
    space = f"nsenter --net --target {phone.space.pid}"
    return phone, f'#!/bin/sh\nexec {space} env HOME={root} {client} -L tcp:5038 "$@"\n'


@pytest.fixture(params=["real", "stand-in"])
def phone(request, tmp_path, monkeypatch):
    library("onnxruntime"), binary()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    if request.param == "real":
        phone, text = real_phone(tmp_path)
    else:
        phone = Phone(tmp_path)
        text = STAND_IN.format(root=tmp_path, home=phone.home, serial=SERIAL)
    (tmp_path / "client").mkdir()
    (tmp_path / "client/adb").write_text(text)
    (tmp_path / "client/adb").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}/client:{os.environ['PATH']}")
    stop = time.monotonic() + 20
    while time.monotonic() < stop and (SERIAL, "device") not in adb._devices():
        with contextlib.suppress(DeviceError):
            _open(SERIAL)
        time.sleep(0.1)
    yield phone
    phone.end()


@pytest.fixture
def model(phone, tmp_path):
    return benching._given(small_onnx(tmp_path / "a.onnx"), benching.connect("host").runtimes)


def begun(phone):
    return lambda: phone.samples() and "begin" in phone.samples().read_text()


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


def test_a_daemon_that_dies_in_the_middle_is_a_lost_link_and_the_run_goes_on(phone, model):
    thread = when(begun(phone), phone.cut)
    found = _open(SERIAL).bench([model], LONG, Silent())
    thread.join()
    assert len(found.records) == 2
    assert phone.left() == []


def test_a_device_that_stays_away_is_told_and_settings_are_put_back(phone, model):
    (phone.state / "fixed").write_text("false\n")
    seen = []

    def away():
        seen.append((phone.state / "fixed").read_text())
        phone.away()

    thread = when(begun(phone), away)
    device = replace(_open(SERIAL), patience_seconds=0.5, settings=Settings(fixed_performance=True))
    with pytest.raises(DeviceError, match=f"the link to adb:{SERIAL} is lost"):
        device.bench([model], LONG, Silent())
    thread.join()
    assert seen == ["true\n"]
    stop = time.monotonic() + 60
    while (phone.folder / "settings").exists() and time.monotonic() < stop:
        time.sleep(0.1)
    assert (phone.state / "fixed").read_text() == "false\n"


def test_a_runner_that_is_killed_is_no_result(phone, model):
    when(begun(phone), lambda: os.kill(phone.runner(), signal.SIGKILL))
    with pytest.raises(DeviceError, match="ended without a result"):
        _open(SERIAL).bench([model], LONG, Silent())
    assert phone.left() == []


def test_a_low_battery_is_refused_and_heat_waited_for(phone, model):
    (phone.state / "battery").write_text("  level: 12\n")
    with pytest.raises(DeviceError, match="has 12 %, 20 % are needed"):
        _open(SERIAL).bench([model], SHORT, Silent())
    with pytest.raises(DeviceError, match="has 12 %"):
        _open(SERIAL).device()
    (phone.state / "battery").write_text("  level: 90\n")
    (phone.state / "thermal").write_text("Thermal Status: 3\n")
    waited = []

    def cool(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            (phone.state / "thermal").write_text("Thermal Status: 1\n")

    found = replace(_open(SERIAL), sleep=cool).bench([model], SHORT, Silent())
    assert len(waited) == 2
    assert found.before["thermal_status"] == 1


def test_it_is_listed_and_a_single_one_needs_no_serial(phone):
    (entry,) = [d for d in devices()["devices"] if d["device"] == f"adb:{SERIAL}"]
    assert entry["missing"] == ""
    if len(adb._devices()) == 1:
        assert _open("").shell.serial == SERIAL


def test_what_is_not_there_is_one_line(phone):
    with pytest.raises(DeviceError, match="cannot reach adb:nobody"):
        _open("nobody")


def test_android_needs_a_runner_and_libraries_of_its_own(phone, model, monkeypatch, tmp_path):
    """What a phone of 64 bits says; there is no NDK here to build for it."""
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    monkeypatch.setattr("targets._shared.remote._PROBE", f"echo Linux aarch64; echo android; echo {tmp_path}")
    with pytest.raises(DeviceError, match="there is no NDK") as caught:
        _open(SERIAL).bench([model], SHORT, Silent())
    assert "ANDROID_NDK_HOME" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "core"),
    [
        ("0 300\n4 700\n7 1024\n", 7),
        ("0 1800000\n1 1800000\n2 2400000\n3 2400000\n", 3),
        ("0 1024\n1 1024\n", -1),
        ("0 \n1 \n", -1),
        ("", -1),
    ],
)
def test_the_biggest_core_is_found(text, core):
    assert big_core(text) == core


@pytest.mark.parametrize("rest", ["a b", "-s", "$(reboot)", "a;b", "\n"])
def test_a_serial_that_cannot_be_is_refused(rest):
    with pytest.raises(DeviceError, match="unknown device"):
        _open(rest)
