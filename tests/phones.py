"""A device behind a real adbd, in a place of its own (`tests.spaces`), and the real adb that reaches it.

It is no phone: what Android's `dumpsys` and `cmd` answer comes from scripts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

import pytest

from targets._routes import adb
from tests.boards import Device
from tests.runners import binary, library
from tests.spaces import SECONDS, Space, space
from toolchain.errors import DeviceError

SERIAL = "127.0.0.1:5555"
TOOLS = "/usr/lib/android-sdk/platform-tools"
ENVIRONMENT = ("/usr/bin/env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin")
ALONE = "ADB_EMU=0"
"""Without it adb takes what listens at 5555 for an emulator besides (a limit on its ports: seldom, still)."""
DUMPSYS = """case $1 in
  battery) cat /mnt/battery;;
  thermalservice) cat /mnt/thermal;;
esac
"""
CMD = '[ "$1 $2" = "power set-fixed-performance-mode-enabled" ] && echo "$3" > /mnt/fixed\n'


class Phone(Device):
    """A device behind adbd. `cut` ends the daemon, which is there again at once."""

    name, shell = f"adb:{SERIAL}", adb.AdbShell

    def __init__(self, place: Space):
        super().__init__(place)
        self.battery("  level: 80\n  temperature: 305\n")
        self.heat(0)
        self.fixed = self.test / "fixed"
        self.program("dumpsys", DUMPSYS)
        self.program("cmd", CMD)
        self._daemon = None
        self._start()

    def open(self):
        return adb._open(SERIAL)

    def battery(self, text):
        (self.test / "battery").write_text(f"Current Battery Service state:\n{text}")

    def heat(self, status):
        (self.test / "thermal").write_text(f"IsStatusOverride: false\nThermal Status: {status}\n")

    def cut(self):
        self.away()
        self._start()

    def away(self):
        self._daemon.kill()
        self._daemon.wait()

    def back(self):
        self._start()
        answering(SERIAL)

    def _start(self):
        with (self.test / "adbd.log").open("ab") as log:
            command = [*self.space.command(), *ENVIRONMENT, "HOME=/root", f"{TOOLS}/adbd"]
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log)

    def end(self):
        self.away()
        self.space.end()


def client(place: Space) -> str:
    """The command of adb, which looks out of the device: both are in one network."""
    return " ".join((*place.command(), *ENVIRONMENT, "HOME=/tmp", ALONE, f"{TOOLS}/adb", "-L", "tcp:5038"))


@pytest.fixture
def phone(tmp_path, monkeypatch):
    library("onnxruntime"), binary()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    place = space(tmp_path)
    if not all(place.inside(f"{TOOLS}/{name}").exists() for name in ("adb", "adbd")):
        place.end()
        pytest.skip("no adb and adbd: make board, or apt-get install adb adbd (Debian 13)")
    (tmp_path / "client").mkdir()
    (tmp_path / "client/adb").write_text(f'#!/bin/sh\nexec {client(place)} "$@"\n')
    (tmp_path / "client/adb").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}/client:{os.environ['PATH']}")
    phone = Phone(place)
    answering(SERIAL)
    yield phone
    phone.end()


def answering(serial):
    """Wait until adb reaches the device."""
    stop = time.monotonic() + SECONDS
    while (serial, "device") not in adb._devices():
        assert time.monotonic() < stop
        with contextlib.suppress(DeviceError):
            adb._open(serial)
        time.sleep(0.05)
