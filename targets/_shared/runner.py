"""The C runner of `targets/runner`: built where a compiler is, its job files written, its libraries found."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from targets._shared.conditions import installed_version
from targets._shared.packages import PACKAGES
from toolchain.artifacts import content_hash, place
from toolchain.errors import DeviceError
from toolchain.latency.timings import cache_folder

SOURCES: Final = Path(__file__).parents[1] / "runner"
ARCHITECTURES: Final = ("x86_64", "aarch64", "armv7")
PREFIXES: Final = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "armv7": "arm-linux-gnueabihf",
}
ANDROID: Final = "android-aarch64"
NDK: Final = "ANDROID_NDK_HOME"
_NDK_CLANG: Final = "toolchains/llvm/prebuilt/*/bin/aarch64-linux-android28-clang"
TRIED: Final = {"onnxruntime": ("1.",), "litert": ("2.3.",)}
"""Versions whose C functions the runner knows: ONNX Runtime keeps its own, LiteRT's move between releases."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """A runtime's shared library. `version` and `sha256` are checked by the runner before it is used."""

    runtime: str
    version: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file on the device; with `sha256` the runner checks that it is what was sent."""

    runtime: str
    path: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the runner is to do: `trials` fresh sessions of every model, `windows` records of each.

    A window has `least` runs or more and ends after `seconds`, or with run number `most` (0: no limit). A
    one-thread run is pinned to `core` (-1: the last one allowed, -2: not pinned), one of more threads is kept
    on `cores` (none: on all). With `turns` above 1 all models are open at once and share the runs of a window
    out in so many turns. `together` (1) opens all models at once and times their inference alone, run by run;
    `profile` begins the names of the runtimes' profiles. `max_celsius`, `min_battery` (percent) and
    `cadence_hz` are off at 0. `marks` (1) shows an instruction counter where runs begin and end. After
    `deadline` seconds the runner ends itself; `lock` is a file that one measurement at a time holds.
    `inputs` and `outputs` are files of raw tensors, for one model. `placement` (1) asks, after all that is
    timed, where the runtime ran each operator; `units` is what Core ML may use, for iPhones only.
    """

    models: tuple[Model, ...]
    libraries: tuple[Library, ...] = ()
    threads: int = 1
    core: int = -1
    cores: tuple[int, ...] = ()
    trials: int = 1
    windows: int = 1
    turns: int = 1
    least: int = 5
    most: int = 0
    seconds: float = 1.0
    warmup: int = 20
    warmup_seconds: float = 1.0
    seed: int = 0
    pool: int = 4
    together: int = 0
    marks: int = 0
    placement: int = 0
    cadence_hz: float = 0.0
    max_celsius: float = 0.0
    cool_seconds: float = 0.0
    min_battery: float = 0.0
    deadline: float = 0.0
    lock: str | None = None
    inputs: str | None = None
    outputs: str | None = None
    profile: str | None = None
    units: str | None = None

    def text(self) -> str:
        """The job file, as docs/runner.md describes it.

        Raises:
            DeviceError: a path holds a line break, which the format has no way to write.
        """
        lines = ["edgefit.job/1"]
        lines += [f"library {e.runtime} {e.version} {e.sha256} {e.path}" for e in self.libraries]
        lines += [f"model {m.runtime} {m.sha256 or '-'} {m.path}" for m in self.models]
        lines += [f"{key} {getattr(self, key)}" for key in _keys("int")]
        lines += [f"{key} {getattr(self, key):.9g}" for key in _keys("float")]
        lines += ["cores " + ",".join(map(str, self.cores))] if self.cores else []
        lines += [f"{key} {path}" for key in _keys("str | None") if (path := getattr(self, key)) is not None]
        for line in lines:
            if "\n" in line or "\0" in line:
                raise DeviceError(f"a path on the device holds a line break: {line!r}")
        return "\n".join(lines) + "\n"


def _keys(kind: str) -> tuple[str, ...]:
    """The keys of a job that are declared as `kind` above, in this order."""
    return tuple(field.name for field in fields(Job) if field.type == kind)


def native() -> str:
    """The architecture of this machine, as the runner's builds are called."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7"}.get(machine, machine)


@functools.cache
def version() -> str:
    """The first twelve digits of the SHA-256 of the runner's sources, as its Makefile takes it."""
    digest = hashlib.sha256()
    for pattern in ("*.c", "*.h"):
        for file in sorted(SOURCES.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def runner(arch: str = "") -> Path:
    """The runner for `arch` (default: this machine's), built on the first use and kept for the user.

    Raises:
        DeviceError: it cannot be built here; the hint says what is missing.
    """
    arch = arch or native()
    if arch not in (*ARCHITECTURES, ANDROID) or platform.system() != "Linux":
        raise DeviceError(
            f"there is no runner for {arch} on {platform.system()}",
            hint=f"it is built on Linux for {', '.join(ARCHITECTURES)}",
        )
    path = cache_folder() / "runner" / f"edgefit-runner-{arch}-{version()}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        place(path, lambda partial: _build(arch, partial))
    return path


def compiler(arch: str) -> str:
    """The C compiler that makes the runner for `arch`."""
    return "cc" if arch == native() else f"{PREFIXES[arch]}-gcc"


def ndk_compiler() -> Path | None:
    """The compiler of the Android NDK that `ANDROID_NDK_HOME` names."""
    folder = os.environ.get(NDK)
    found = sorted(Path(folder).glob(_NDK_CLANG)) if folder else []
    return found[0] if found else None


def _build(arch: str, path: Path) -> None:
    if arch == ANDROID:
        clang = ndk_compiler()
        if clang is None:
            raise DeviceError(
                "the runner for Android cannot be built: there is no NDK",
                hint=f"unpack the Android NDK and let {NDK} name its folder",
            )
        _make("aarch64", path, f"CC={clang}")
        return
    package = "gcc" if arch == native() else f"gcc-{PREFIXES[arch]}"
    for tool, source in (("make", "make"), (compiler(arch), package)):
        if shutil.which(tool) is None:
            raise DeviceError(
                f"the runner for {arch} cannot be built: there is no {tool}", hint=f"apt-get install {source}"
            )
    _make(arch, path)


def _make(arch: str, path: Path, *more: str) -> None:
    folder = path.with_suffix(".build")
    try:
        done = subprocess.run(
            ["make", "-s", "-C", str(SOURCES), f"ARCH={arch}", f"BUILD={folder}", *more],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["make failed"]
            raise DeviceError(f"the runner for {arch} cannot be built: {lines[0]}")
        (folder / f"edgefit-runner-{arch}").replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def installed_library(runtime: str) -> Library | None:
    """The C library inside the installed wheel of `runtime`; None where there is none the runner knows."""
    package = PACKAGES[runtime]
    spec, found = importlib.util.find_spec(package.module), installed_version(package.distribution)
    if spec is None or not spec.submodule_search_locations or found is None:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).parent.glob(package.library))
    if not files or not found.startswith(TRIED[runtime]):
        return None
    path = files[-1].resolve()
    return Library(
        runtime=runtime, version=found, path=str(path), sha256=_hash(path, path.stat().st_mtime_ns)
    )


@functools.cache
def _hash(path: Path, _modified: int) -> str:
    return content_hash(path)


def usable(runtimes: Sequence[str]) -> tuple[Path, tuple[Library, ...]] | None:
    """The runner of this machine and the libraries of `runtimes`; None where Python has to measure."""
    libraries = tuple(installed_library(runtime) for runtime in sorted(set(runtimes)))
    if any(library is None for library in libraries):
        return None
    try:
        return runner(), tuple(library for library in libraries if library is not None)
    except DeviceError:
        return None
