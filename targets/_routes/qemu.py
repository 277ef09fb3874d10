"""An emulated Arm machine: outputs of the Arm kernels, and instructions for each inference. Never a time.

qemu-user runs the runner and the runtime's own library for aarch64; nothing is registered with the kernel. A
plugin built from `targets/counter` counts what is executed between the marks of the runner.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from targets._shared.bundling import fetch_library
from targets._shared.driving import follow_job
from targets._shared.parity import SILENCE_SECONDS, outputs_here, parity, parity_job
from targets._shared.runner import Job, Library, compiler, runner
from targets._shared.sysroot import CORES, LIBRARIES, sysroot
from targets.host import TARGET
from toolchain.artifacts import content_hash, place
from toolchain.contracts import (
    Benched,
    BenchSettings,
    Checked,
    ModelFile,
    Need,
    Progress,
    Reachable,
    Route,
    Tier,
)
from toolchain.errors import DeviceError
from toolchain.latency.timings import cache_folder

EMULATOR: Final = "qemu-aarch64"
COUNTER: Final = Path(__file__).parents[1] / "counter" / "counter.c"
ENVIRONMENT: Final = "GLIBC_TUNABLES=glibc.malloc.tcache_count=127"
"""Of the emulated program. onnxruntime allocates some 250 times in an inference, and how long the C library
looks for each piece depends on what was freed before: ViT's counts moved by 0.03 %, within one process. With
room for 127 freed pieces of each size, not 7, it takes them from there, and 10 of 12 counts were the same.
"""
UNCOUNTED: Final = 12
"""Inferences until freed pieces are enough: ViT's counts in int8 fell by 0.08 %, then stayed within 0.005 %.
"""
ANY: Final = Tier(name="none", runs=1, seconds=0.0, trials=1)
# (version of qemu, version of its plugin interface): the newest at or below the installed one is asked for.
_INTERFACES: Final = (((10, 1), 5), ((9, 2), 4), ((9, 1), 3), ((9, 0), 2), ((4, 2), 1))


@dataclass(frozen=True, kw_only=True)
class Emulated:
    """One emulated core called `core`. `runs` inferences of a file count, after UNCOUNTED that do not."""

    core: str
    runs: int = 5
    runtimes = TARGET.runtimes

    def bench(self, files: Sequence[ModelFile], settings: BenchSettings, progress: Progress) -> Benched:
        """Instructions of every inference, and how the outputs compare with those of this machine.

        Raises:
            DeviceError: something is missing here, a thread count or cadence is asked for, or a run failed.
        """
        if settings.threads != 1 or settings.cadence_hz or settings.max_celsius:
            raise DeviceError(
                "an emulated device has one thread and no clock",
                hint="leave out --threads, --cadence-hz and --max-celsius",
            )
        _require()
        counts, parities, versions = [], [], {}
        for number, file in enumerate(files):
            library = fetch_library(file.runtime, "aarch64")
            counted, outputs = self.run(file, library)
            versions[file.runtime] = library.version
            counts.append(counted)
            parities.append(parity(outputs, outputs_here(file)))
            progress.step(number + 1, len(files), file.path.name)
        return Benched(
            device=f"qemu:{self.core}",
            driver=f"{EMULATOR} {'.'.join(map(str, _version()))}",
            versions=versions,
            before={"cpu": self.core, "machine": "aarch64"},
            after=None,
            records=(),
            instructions=tuple(counts),
            parity=tuple(parities),
        )

    def check(self, files: Sequence[ModelFile], progress: Progress) -> tuple[Checked, ...]:
        """As `bench`: instructions and outputs are all there is."""
        found = self.bench(files, BenchSettings(tier=ANY), progress)
        assert found.parity is not None
        assert found.instructions is not None
        pairs = zip(found.parity, found.instructions, strict=True)
        return tuple(Checked(parity=parity, instructions=counts) for parity, counts in pairs)

    def device(self) -> None:
        """None: an emulator has no clock to plan by."""

    def run(self, file: ModelFile, library: Library) -> tuple[tuple[int, ...], bytes]:
        """Instructions of each run, and the outputs of the first inference as raw tensors."""
        whole = UNCOUNTED + self.runs
        with tempfile.TemporaryDirectory() as folder:
            counted, outputs = Path(folder) / "counts", Path(folder) / "outputs"
            job = parity_job(file, str(file.path.resolve()), str(outputs))
            job = replace(job, libraries=(library,), least=whole, most=whole, marks=1)
            self._follow(job, "-plugin", f"{_counter()},out={counted}")
            lines = counted.read_text(encoding="ascii").split()
            if len(lines) != whole:
                raise DeviceError(f"{len(lines)} of {whole} inferences of {file.path.name} were counted")
            return tuple(map(int, lines[UNCOUNTED:])), outputs.read_bytes()

    def outputs(self, file: ModelFile, library: Library, sessions: int) -> bytes:
        """Outputs of the first inference of so many sessions, each on its own inputs, as raw tensors."""
        with tempfile.TemporaryDirectory() as folder:
            outputs = Path(folder) / "outputs"
            job = parity_job(file, str(file.path.resolve()), str(outputs), sessions)
            self._follow(replace(job, libraries=(library,)))
            return outputs.read_bytes()

    def _follow(self, job: Job, *options: str) -> None:
        """Run a job under the emulator, which takes `options`."""
        emulator = shutil.which(EMULATOR)
        assert emulator is not None
        follow_job(
            runner("aarch64"),
            job,
            silence_seconds=SILENCE_SECONDS,
            on_record=lambda _: None,
            before=[
                *(emulator, "-cpu", self.core, "-L", str(sysroot(self.core, _folder()))),
                *("-E", ENVIRONMENT),
                *options,
            ],
        )


def _version() -> tuple[int, ...]:
    """The emulator's version; empty where it is not installed."""
    if shutil.which(EMULATOR) is None:
        return ()
    said = subprocess.run([EMULATOR, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


def _takes_plugins() -> bool:
    if not _version():
        return False
    said = subprocess.run([EMULATOR, "--help"], capture_output=True, text=True, check=False).stdout
    return "-plugin" in said


def _folder() -> Path:
    """Where what is made once for the emulator is kept for the user."""
    return cache_folder() / "emulated"


def _counter() -> Path:
    """The plugin, built once for the installed emulator."""
    interface = next(number for least, number in _INTERFACES if _version() >= least)
    path = _folder() / f"counter-{interface}-{content_hash(COUNTER)[:12]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        place(path, lambda partial: _compile(interface, partial))
    return path


def _compile(interface: int, path: Path) -> None:
    flags = ["-std=c11", "-O2", "-shared", "-fPIC", f"-DQEMU_PLUGIN_API={interface}"]
    done = subprocess.run(
        ["cc", *flags, str(COUNTER), "-o", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DeviceError(f"the instruction counter cannot be built: {done.stderr.strip().splitlines()[-1]}")


def _needs() -> tuple[Need, ...]:
    version = ".".join(map(str, _version()))
    cross = compiler("aarch64")
    libraries = LIBRARIES if (LIBRARIES / "libstdc++.so.6").exists() else None
    return (
        Need(
            name=f"{EMULATOR} that takes plugins",
            found=version if _takes_plugins() else "",
            hint=_apt("qemu-user"),
        ),
        Need(name=cross, found=shutil.which(cross) or "", hint=_apt("gcc-aarch64-linux-gnu")),
        Need(
            name="libraries for aarch64",
            found=str(libraries or ""),
            hint=_apt("libc6-arm64-cross libstdc++6-arm64-cross"),
        ),
        Need(name="a C compiler for the counter", found=shutil.which("cc") or "", hint=_apt("gcc libc6-dev")),
        Need(name="make", found=shutil.which("make") or "", hint=_apt("make")),
    )


def _apt(packages: str) -> str:
    return f"apt-get install {packages}"


def _require() -> None:
    for need in _needs():
        if not need.found:
            raise DeviceError(f"an emulated device needs {need.name}", hint=need.hint)


def _open(rest: str) -> Emulated:
    if rest not in CORES:
        known = ", ".join(f"qemu:{core}" for core in CORES)
        raise DeviceError(f"unknown device {'qemu:' + rest!r}", hint=f"known: {known}")
    return Emulated(core=rest)


def _found() -> tuple[Reachable, ...]:
    missing = next((need for need in _needs() if not need.found), None)
    summary = "emulated: outputs and instruction counts, no times"
    return tuple(
        Reachable(
            device=f"qemu:{core}",
            summary=summary,
            missing=missing.name if missing else "",
            hint=missing.hint if missing else "",
        )
        for core in CORES
    )


ROUTE: Final = Route(
    name="qemu",
    form="qemu:CORE",
    summary="an emulated Arm core: parity and instruction counts, never a time",
    open=_open,
    found=_found,
    needs=_needs,
    clock=False,
)
