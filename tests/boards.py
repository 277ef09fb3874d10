"""A device behind a real sshd, in its own network namespace: nothing listens anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.runners import binary, library


class Board:
    """The device's side: its home folder, and the processes that serve connections."""

    def __init__(self, root):
        self.home, self.root = root / "board", root
        self.folder = self.home / ".cache/edgefit"

    def connections(self):
        file = self.root / "connections"
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    def cut(self):
        """Kill what serves the newest connection."""
        os.kill(self.connections()[-1], signal.SIGKILL)

    def samples(self):
        return next(iter(self.folder.glob("runs/*/samples.ndjson")), None)

    def runner(self):
        """The process that measures, or None."""
        pid = next(iter(self.folder.glob("runs/*/pid")), None)
        return int(pid.read_text()) if pid is not None and pid.read_text().strip() else None

    def left(self):
        """What is left of runs: folders and processes."""
        found = [str(p) for p in self.folder.glob("runs/*")]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found += [process.parent.name] if str(self.folder).encode() in process.read_bytes() else []
            except OSError:
                continue
        return found


@pytest.fixture
def board(tmp_path, monkeypatch):
    pytest.importorskip("asyncssh")
    library("onnxruntime"), binary()
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(sshd).exists():
        pytest.skip("no sshd: apt-get install openssh-server")
    if os.getuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode != 0:
        pytest.skip("network namespaces are not permitted here")
    Path("/run/sshd").mkdir(exist_ok=True)
    board = Board(tmp_path)
    home = tmp_path / "home"
    board.home.mkdir()
    (home / ".ssh").mkdir(parents=True)
    for key in (tmp_path / "host", home / ".ssh/id_ed25519", tmp_path / "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (tmp_path / "authorized").write_text((home / ".ssh/id_ed25519.pub").read_text())
    (tmp_path / "sshd_config").write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPidFile none\n"
        f"SetEnv HOME={board.home} PATH={tmp_path}/bin:/usr/bin:/bin\n"
    )
    serve(board, f"exec unshare --net {sshd} -i -E {tmp_path}/log -f {tmp_path}/sshd_config")
    (home / ".ssh/config").write_text(f"Host board\n  User root\n  ProxyCommand {tmp_path}/serve\n")
    key = (tmp_path / "host.pub").read_text().split()
    (home / ".ssh/known_hosts").write_text(f"board {key[0]} {key[1]}\n")
    monkeypatch.setenv("HOME", str(home))
    yield board
    for pid in board.connections():
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


def serve(board, command):
    """What the client runs instead of opening a connection."""
    script = board.root / "serve"
    script.write_text(f"#!/bin/sh\necho $$ >> {board.root}/connections\n{command}\n")
    script.chmod(0o700)
