"""What a device needs to measure: the runner for it, and a runtime's library out of its platform's wheel."""

from __future__ import annotations

import fnmatch
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from targets._shared.conditions import installed_version
from targets._shared.packages import PACKAGES
from targets._shared.runner import ARCHITECTURES, TRIED, Library, runner, version
from toolchain.artifacts import content_hash, place
from toolchain.errors import DeviceError, InputError
from toolchain.latency.timings import cache_folder

KNOWN: Final = {"onnxruntime": "1.31.1", "litert": "2.3.0"}
"""Versions to fetch where none is installed here."""
_DOWNLOAD: Final = (
    *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
    *("--no-deps", "--only-binary=:all:"),
)
_GLIBC: Final = (17, 27, 28, 31, 34, 35, 36)
"""Minor versions of glibc that wheels are tagged with (manylinux_2_NN)."""


def fetch_library(runtime: str, arch: str) -> Library:
    """The library of `runtime` for `arch`, of the version installed here, fetched once and kept for the user.

    Raises:
        DeviceError: there is no wheel for the platform, or the package index cannot be reached.
    """
    known = runtime_version(runtime)
    folder = cache_folder() / "libraries" / f"{runtime}-{known}-{arch}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        place(folder, lambda partial: _fetch(runtime, known, arch, partial))
    (path,) = folder.iterdir()
    return Library(runtime=runtime, version=known, path=str(path), sha256=content_hash(path))


def given_library(runtime: str, folder: str | None) -> Library:
    """The library of `runtime` for Android: `RUNTIME-VERSION.so` in the user's own folder.

    Raises:
        DeviceError: there is none of a version that the runner knows.
    """
    found = sorted(Path(folder).expanduser().glob(f"{runtime}-*.so")) if folder else []
    for path in reversed(found):
        known = path.stem.removeprefix(f"{runtime}-")
        if known.startswith(TRIED[runtime]):
            return Library(runtime=runtime, version=known, path=str(path), sha256=content_hash(path))
    raise DeviceError(
        f"there is no library of {runtime} for Android",
        hint=f"docs/runner.md says where it comes from: {runtime}-{KNOWN[runtime]}.so in `libraries`",
    )


def runtime_version(runtime: str) -> str:
    """The version to take to a device: the installed one, so that results can be compared.

    Raises:
        DeviceError: an unknown runtime, or the installed version is one that the runner does not know.
    """
    if runtime not in PACKAGES:
        raise DeviceError(f"unknown runtime '{runtime}'", hint=f"known: {', '.join(PACKAGES)}")
    known = installed_version(PACKAGES[runtime].distribution) or KNOWN[runtime]
    if not known.startswith(TRIED[runtime]):
        raise DeviceError(
            f"the runner does not know {runtime} {known}",
            hint=f"pip install '{PACKAGES[runtime].distribution}=={KNOWN[runtime]}'",
        )
    return known


def bundle(arch: str, runtimes: Sequence[str], folder: Path) -> dict[str, object]:
    """A folder with all that a device of `arch` needs: `edgefit-runner`, libraries, and `bundle.json`.

    Raises:
        DeviceError: as `runner.runner` and `fetch_library`.
        InputError: the folder cannot be written, or holds something else than a bundle.
    """
    if folder.exists() and not (folder / "bundle.json").is_file():
        raise InputError(f"{folder} exists and is no bundle", hint="name another folder with --out")
    program = runner(_known_arch(arch))
    libraries = [fetch_library(runtime, arch) for runtime in runtimes]
    record: dict[str, object] = {
        "schema": "edgefit.bundle/1",
        "arch": arch,
        "runner": version(),
        "libraries": [
            {"runtime": e.runtime, "version": e.version, "file": Path(e.path).name, "sha256": e.sha256}
            for e in libraries
        ],
    }

    def fill(partial: Path) -> None:
        partial.mkdir()
        shutil.copy2(program, partial / "edgefit-runner")
        for library in libraries:
            shutil.copy2(library.path, partial / Path(library.path).name)
        (partial / "bundle.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    place(folder, fill)
    return record


def _known_arch(arch: str) -> str:
    if arch not in ARCHITECTURES:
        raise DeviceError(f"there is no runner for {arch}", hint=f"known: {', '.join(ARCHITECTURES)}")
    return arch


def _fetch(runtime: str, known: str, arch: str, folder: Path) -> None:
    """The library out of the wheel that pip finds for the platform, in a new folder."""
    machine = {"armv7": "armv7l"}.get(arch, arch)
    tags = [f"--platform=manylinux_2_{minor}_{machine}" for minor in _GLIBC]
    wanted = f"{PACKAGES[runtime].distribution}=={known}"
    with tempfile.TemporaryDirectory() as download:
        done = subprocess.run(
            [*_DOWNLOAD, "--dest", download, *tags, wanted],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = sorted(Path(download).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            lines = [x.removeprefix("ERROR: ") for x in done.stderr.splitlines() if x.startswith("ERROR")]
            raise DeviceError(
                f"no {wanted} for {machine}: {lines[0] if lines else 'pip found nothing'}",
                hint="the package index has no wheel of it, or cannot be reached from here",
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            pattern = PACKAGES[runtime].library
            inside = [name for name in wheel.namelist() if fnmatch.fnmatch(name, pattern)]
            if len(inside) != 1:
                raise DeviceError(f"{wheels[0].name} holds {len(inside)} files like {pattern}")
            folder.mkdir()
            (folder / Path(inside[0]).name).write_bytes(wheel.read(inside[0]))
