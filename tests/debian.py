"""A device's file system for the tests: packages of Debian 13, unpacked into the user's cache folder.

    python -m tests.debian          # or: make board

apt-get resolves and downloads them from the mirror that this machine is set up with, as if nothing were
installed; nothing is. Where that cannot be, the tests take this machine's own programs, or skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from toolchain.artifacts import place

RELEASE: Final = "trixie"
"""The first release with adbd."""
PACKAGES: Final = ("adb", "adbd", "openssh-server", "busybox-static", "dash", "coreutils", "grep")
KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
USERS: Final = "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
GROUPS: Final = "root:x:0:\nnogroup:x:65534:\n"
EMPTY: Final = ("dev/shm", "mnt", "proc", "root", "run", "sys", "tmp", "usr/local/bin", "var/tmp")
SECONDS: Final = 600.0
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
FOLDER: Final = _CACHE / "edgefit" / f"board-{RELEASE}-1"


def root() -> Path:
    """What devices have as their root: Debian's packages, or this machine's own files."""
    return FOLDER if FOLDER.is_dir() else Path("/")


def fetch() -> Path:
    """The folder, filled on the first call.

    Raises:
        OSError, subprocess.SubprocessError: there is no apt-get or dpkg-deb, or they failed.
    """
    if not FOLDER.is_dir():
        FOLDER.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            archives = _download(Path(folder))
            place(FOLDER, lambda partial: _unpack(archives, partial))
    return FOLDER


def _mirror() -> str:
    """Where this machine has Debian's main packages from."""
    wanted = "$(CREATED_BY)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)"
    for line in _said("apt-get", "indextargets", "--format", wanted).splitlines():
        created, component, release, address = line.split("|", 3)
        if (created, component) == ("Packages", "main") and "-" not in release:
            return address
    raise OSError("apt is not set up with a mirror of Debian")


def _download(work: Path) -> list[Path]:
    """The packages with all that they need."""
    (work / "sources").write_text(f"deb [signed-by={KEYS}] {_mirror()} {RELEASE} main\n")
    (work / "status").touch()
    for name in ("none", "state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    options = {
        "Dir::Etc::SourceList": work / "sources",
        "Dir::Etc::SourceParts": work / "none",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    _said(*apt, "update")
    _said(*apt, "install", "--yes", "--no-install-recommends", "--download-only", *PACKAGES)
    return sorted((work / "cache/archives").glob("*.deb"))


def _unpack(archives: list[Path], folder: Path) -> None:
    """A root as Debian lays it out; what installing would set up is the two files of users and groups."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    for archive in archives:
        _said("dpkg-deb", "--extract", str(archive), str(folder))
    for name in EMPTY:
        (folder / name).mkdir(parents=True, exist_ok=True)
    if not (folder / "usr/bin/sh").exists():
        (folder / "usr/bin/sh").symlink_to("dash")
    (folder / "etc/passwd").write_text(USERS)
    (folder / "etc/group").write_text(GROUPS)


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise OSError(f"there is no {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.startswith("E: ")]
        raise OSError(f"{command[0]} failed: {(lines or ['it said nothing'])[0]}")
    return done.stdout


def main() -> int:
    """Fetch, and say where it is or why it is not."""
    try:
        sys.stdout.write(f"{fetch()}\n")
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"error: the tests' device cannot be had: {error}\n")
        sys.stderr.write("hint: tests of ssh and adb then use this machine's sshd and adbd, or skip\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
