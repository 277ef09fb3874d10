"""A device behind a real sshd, in a place of its own (`tests.spaces`): nothing listens anywhere."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from targets._routes import ssh
from tests.runners import binary, library
from tests.spaces import Space, space

CONFIG = """HostKey /mnt/host
AuthorizedKeysFile /mnt/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
SetEnv PATH=/usr/local/bin:/usr/bin:/bin HOME=/root
"""


class Device:
    """What is on a device, and what runs there. The folder of its test is /mnt on it."""

    name = ""

    def __init__(self, place: Space):
        self.space, self.home, self.test = place, place.home, place.test

    @property
    def folder(self):
        """Where the device has what was sent and what is measured."""
        return self.space.inside("/root/.cache/edgefit")

    def samples(self):
        return next(iter(self.folder.glob("runs/*/samples.ndjson")), None)

    def begun(self):
        """Whether a measurement has written its first record."""
        samples = self.samples()
        return samples is not None and "begin" in samples.read_text()

    def runner(self):
        """The process that measures, or None."""
        pid = next(iter(self.folder.glob("runs/*/pid")), None)
        return int(pid.read_text()) if pid is not None and pid.read_text().strip() else None

    def guard(self):
        """The process that puts back what was set."""
        return int((self.folder / "settings/pid").read_text())

    def sent(self):
        """The files that were sent and are kept, with the time of each."""
        return {file.name: file.stat().st_mtime_ns for file in self.folder.glob("files/*")}

    def left(self):
        """What is left of runs: folders and processes. What is just ending is given a moment."""
        stop = time.monotonic() + 3.0
        while (found := self._left()) and time.monotonic() < stop:
            time.sleep(0.05)
        return found

    def _left(self):
        own = (b"edgefit", b"guard", b"tegrastats")
        processes = self.space.processes().items()
        running = [f"{pid}: {line!r}" for pid, line in processes if any(word in line for word in own)]
        return [str(p) for p in (*self.folder.glob("runs/*"), *self.folder.glob("settings"))] + running

    def program(self, name, text):
        """Put a program where the device looks first; /usr/local/bin there."""
        path = self.test / "bin" / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o700)


class Board(Device):
    """A device behind sshd; the processes that serve connections are its `connections`."""

    name, shell = "ssh://board", ssh.SshShell

    def __init__(self, place: Space):
        super().__init__(place)
        self.back()

    def open(self):
        return ssh._open("//board")

    def connections(self):
        file = self.test / "connections"
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    def cut(self):
        """Kill what serves the newest connection."""
        os.kill(self.connections()[-1], signal.SIGKILL)

    def away(self):
        """The link breaks, and there is no new one."""
        self._serve("exit 1")
        self.cut()

    def back(self):
        """There are connections (again)."""
        sshd = "/usr/sbin/sshd -i -E /mnt/log -f /mnt/sshd_config"
        self._serve(f"exec {' '.join(self.space.command())} {sshd}")

    def _serve(self, command):
        script = self.test / "serve"
        script.write_text(f"#!/bin/sh\necho $$ >> {self.test}/connections\n{command}\n")
        script.chmod(0o700)


@pytest.fixture
def board(tmp_path, monkeypatch):
    asyncssh = pytest.importorskip("asyncssh")
    library("onnxruntime"), binary()
    place = space(tmp_path)
    try:
        if not place.inside("/usr/sbin/sshd").exists():
            pytest.skip("no sshd: make board, or apt-get install openssh-server")
        home = tmp_path / "home"
        (home / ".ssh").mkdir(parents=True)
        for path in (tmp_path / "host", home / ".ssh/id_ed25519", tmp_path / "other"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(path)
            path.chmod(0o600)
            key.write_public_key(path.with_suffix(".pub"))
        (tmp_path / "authorized").write_text((home / ".ssh/id_ed25519.pub").read_text())
        (tmp_path / "sshd_config").write_text(CONFIG)
        (home / ".ssh/config").write_text(f"Host board\n  User root\n  ProxyCommand {tmp_path}/serve\n")
        kind, key, *_ = (tmp_path / "host.pub").read_text().split()
        (home / ".ssh/known_hosts").write_text(f"board {kind} {key}\n")
        monkeypatch.setenv("HOME", str(home))
        yield Board(place)
    finally:
        place.end()


@contextlib.contextmanager
def beside(true, then):
    """Does something beside the test, as soon as it is time."""
    happened = []

    def wait():
        stop = time.monotonic() + 60
        while time.monotonic() < stop:
            with contextlib.suppress(FileNotFoundError):  # a file that went while it was looked at
                if true():
                    happened.append(then())
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield
    thread.join()
    assert happened
