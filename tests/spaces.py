"""Where the tests' devices live: network and mount namespaces with a root that cannot be written.

Of this machine a device sees its processes and, at /mnt, the folder of its test. Its home is a folder there,
too. Everything else that can be written is in memory and gone with the namespaces.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from tests import debian

_SETUP: Final = """set -e
[ {root} = / ] || mount --bind {root} {root}
cd {root}
[ {root} = / ] || {{ mount --rbind /proc proc; mount --rbind /dev dev; }}
mount --bind {test} mnt
mount --bind {test}/board root
mount --bind {test}/bin usr/local/bin
for folder in dev/shm run tmp; do mount -t tmpfs none $folder; done
mkdir run/sshd
ip link set lo up
mount -o remount,bind,ro {root}
touch mnt/space
PATH=$PATH:/usr/sbin:/sbin
exec chroot . /bin/sh -c 'while :; do sleep 1; done'
"""
SECONDS: Final = 20.0


class Space:
    """A device without a way in: `root`, `home`, and programs in `test`/bin, /usr/local/bin there."""

    def __init__(self, test: Path) -> None:
        self.test, self.root, self.home = test, debian.root(), test / "board"
        for folder in (self.home, test / "bin"):
            folder.mkdir(exist_ok=True)
        text = _SETUP.format(root=shlex.quote(str(self.root)), test=shlex.quote(str(test)))
        self._holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", text])
        stop = time.monotonic() + SECONDS
        while not (test / "space").exists() or not self.inside("/mnt/space").exists():
            assert self._holder.poll() is None
            assert time.monotonic() < stop
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """A process that is there as long as the device."""
        return self._holder.pid

    def command(self) -> list[str]:
        """What to put before a command to run it on the device."""
        return ["nsenter", "--net", "--mount", "--root", "--wd", f"--target={self.pid}"]

    def inside(self, path: str) -> Path:
        """A path of the device, seen from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def change(self, command: str) -> None:
        """Run a command of this machine in the device's namespaces, in the device's root folder."""
        enter = ["nsenter", "--net", "--mount", f"--target={self.pid}"]
        subprocess.run([*enter, "sh", "-c", f"cd {shlex.quote(str(self.root))} && {command}"], check=True)

    def busybox(self) -> None:
        """From now on the device's shell and all its commands are BusyBox's."""
        found = shutil.which("busybox") if self.root == Path("/") else str(self.root / "usr/bin/busybox")
        if found is None:
            pytest.skip("no busybox: make board, or apt-get install busybox-static")
        applets = self.test / "applets"
        applets.mkdir()
        shutil.copy2(found, applets / "busybox")
        names = subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout
        for name in names.split():
            if name != "busybox":
                (applets / name).symlink_to("busybox")
        self.change("mount --bind mnt/applets usr/bin")

    def processes(self) -> dict[int, bytes]:
        """The command lines of what runs on the device."""
        mine, found = Path(f"/proc/{self.pid}/ns/mnt").readlink(), {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/mnt").readlink() == mine:
                    found[int(process.name)] = (process / "cmdline").read_bytes()
            except OSError:
                continue
        return found

    def end(self) -> None:
        """Nothing of the device is left."""
        # The holder is held, or it would start another sleep for each that is killed. Until there are none:
        # what is killed may have started something since it was looked at.
        os.kill(self.pid, signal.SIGSTOP)
        stop = time.monotonic() + SECONDS
        while others := [pid for pid in self.processes() if pid != self.pid]:
            assert time.monotonic() < stop, others
            for pid in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self._holder.kill()
        self._holder.wait()


def space(test: Path) -> Space:
    """A device, or a skip with the reason why there can be none here."""
    missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {missing[0]}: apt-get install util-linux iproute2")
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], check=False, capture_output=True)
    if os.getuid() != 0 or tried.returncode != 0:
        pytest.skip("network namespaces are not permitted here")
    return Space(test)
