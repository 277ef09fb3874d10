"""The runner on a device behind a shell: sent by content, run apart from the link, believed when complete.

Only a POSIX shell is needed there (BusyBox is enough). Everything lies in one folder of the device:
`files/HASH` for what was sent, `runs/KEY` for one measurement, removed when its result was fetched.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from targets._shared.benching import job_of
from targets._shared.bundling import fetch_library
from targets._shared.runner import Job, Library, installed_library, native, runner, version
from toolchain.artifacts import content_hash
from toolchain.contracts import Benched, BenchSettings, ModelFile, Progress
from toolchain.errors import DeviceError

ARCHITECTURES: Final = {"x86_64": "x86_64", "aarch64": "aarch64", "armv7l": "armv7", "armv8l": "armv7"}
POLL_SECONDS: Final = 1.0
"""Between two questions at least; a twentieth of the measurement where that is longer: each disturbs it."""
SPARE_SECONDS, SLOW_SECONDS = 300.0, 10.0
"""What a measurement may take at most besides its runs, and for each run that the tier asks for."""
_PLACES: Final = '"${HOME:-/nonexistent}/.cache/edgefit" /var/tmp/edgefit /tmp/edgefit /dev/shm/edgefit'
_PROBE: Final = f"""uname -sm
for d in {_PLACES}; do
  mkdir -p "$d/files" "$d/runs" 2>/dev/null || continue
  (printf '#!/bin/sh\\nexit 0\\n' > "$d/.try" && chmod 700 "$d/.try") 2>/dev/null || continue
  if "$d/.try" 2>/dev/null; then rm -f "$d/.try"; echo "$d"; break; fi
  rm -f "$d/.try"
done"""
_STATE: Final = """cd {run} 2>/dev/null || {{ echo absent; exit 0; }}
if [ -f result.json ]; then echo done
elif [ -f pid ] && grep -q edgefit "/proc/$(cat pid)/cmdline" 2>/dev/null; then echo running
elif [ -f result.json ]; then echo done
else echo dead; fi"""
_STOP: Final = """cd {run} 2>/dev/null || exit 0
if [ -f pid ] && grep -q edgefit "/proc/$(cat pid)/cmdline" 2>/dev/null; then
  kill "$(cat pid)" 2>/dev/null
  for k in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$(cat pid)" 2>/dev/null || break; sleep 1; done
  kill -9 "$(cat pid)" 2>/dev/null
fi
cd / && rm -rf {run}"""


class LinkLostError(DeviceError):
    """The connection broke; the device may go on without it."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command on the device ended with."""

    status: int
    out: bytes
    err: bytes


class Shell(Protocol):
    """A way to run commands on a device."""

    @property
    def name(self) -> str:
        """As it is written after --device."""

    def run(self, command: str, *, sent: bytes = b"", seconds: float = 60.0) -> Said:
        """Run a shell command, `sent` on its standard input.

        Raises:
            LinkLostError: no exit status came back.
        """

    def reconnect(self) -> None:
        """Make a new connection after the link was lost.

        Raises:
            LinkLostError: it is still gone.
        """


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a device is and where on it there is room for programs."""

    arch: str
    folder: str


def measure(
    shell: Shell,
    files: Sequence[ModelFile],
    settings: BenchSettings,
    progress: Progress,
    *,
    patience_seconds: float = 120.0,
) -> Benched:
    """Bench `files` on the device behind `shell`.

    A lost link is made again for `patience_seconds`; the run on the device does not notice. A run that an
    earlier call lost is found again by what it measures.

    Raises:
        DeviceError: something is missing there, or the measurement is not complete.
    """
    place = _probe(shell)
    libraries = [_library(file_runtime, place.arch) for file_runtime in sorted({f.runtime for f in files})]
    program = _upload(shell, place, runner(place.arch), executable=True)
    _require_runs(shell, program)
    there = [replace(e, path=_upload(shell, place, Path(e.path))) for e in libraries]
    paths = []
    for number, file in enumerate(files):
        progress.step(number, len(files), f"sending {file.path.name}")
        paths.append(_upload(shell, place, file.path, known=file.sha256))
    job = _job(files, settings, paths, there, place)
    key = hashlib.sha256(job.text().encode()).hexdigest()[:16]
    run = f"{place.folder}/runs/{key}"
    try:
        _start(shell, run, program, job)
        _wait(shell, run, max(POLL_SECONDS, settings.tier.seconds / 20), patience_seconds)
        records = _patiently(shell, patience_seconds, lambda: _fetch(shell, run))
    except LinkLostError:
        raise
    except BaseException:
        _stop(shell, run)
        raise
    _stop(shell, run)
    begin, *trials, end = records
    return Benched(
        device=shell.name,
        driver=f"runner {version()}",
        versions=begin["libraries"],
        before=begin["conditions"],
        after=end["conditions"],
        records=tuple(trials),
    )


def _probe(shell: Shell) -> Place:
    lines = _well(shell, _PROBE, "look around").splitlines()
    system, _, machine = (lines[0] if lines else "").partition(" ")
    arch = ARCHITECTURES.get(machine.strip())
    if system != "Linux" or arch is None:
        raise DeviceError(
            f"{shell.name} is {lines[0] if lines else 'silent'}: there is no runner for it",
            hint=f"runners are built for Linux on {', '.join(ARCHITECTURES)}",
        )
    if len(lines) < 2:
        raise DeviceError(
            f"{shell.name} has no folder that can be written and run from",
            hint="tried the home folder, /var/tmp, /tmp and /dev/shm",
        )
    return Place(arch=arch, folder=lines[1])


def _library(runtime: str, arch: str) -> Library:
    here = installed_library(runtime) if arch == native() else None
    return here or fetch_library(runtime, arch)


def _upload(
    shell: Shell, place: Place, path: Path, *, known: str | None = None, executable: bool = False
) -> str:
    """Where the file lies on the device, sent there unless a file of its content is there already."""
    digest = known or content_hash(path)
    target = f"{place.folder}/files/{digest}"
    size = path.stat().st_size
    quoted, partial = shlex.quote(target), shlex.quote(f"{target}.partial")
    if _well(shell, f"wc -c < {quoted} 2>/dev/null || echo none", "look for files").strip() != str(size):
        mode = "700" if executable else "600"
        write = f"cat > {partial} && chmod {mode} {partial} && mv {partial} {quoted}"
        clean = f"{write} || {{ rm -f {partial}; exit 1; }}"
        said = shell.run(clean, sent=path.read_bytes(), seconds=600.0)
        if said.status != 0:
            raise DeviceError(f"cannot send {path.name} to {shell.name}: {_last(said.err)}")
    return target


def _require_runs(shell: Shell, program: str) -> None:
    said = shell.run(f"{shlex.quote(program)} --version")
    if said.status != 0 or version() not in said.out.decode(errors="replace"):
        raise DeviceError(
            f"the runner does not run on {shell.name}: {_last(said.err)}",
            hint="it needs a glibc no older than that of the machine it was built on",
        )


def _job(
    files: Sequence[ModelFile],
    settings: BenchSettings,
    paths: Sequence[str],
    libraries: Sequence[Library],
    place: Place,
) -> Job:
    job = job_of(files, settings, paths, hashed=True)
    tier = settings.tier
    slow = 4 * (tier.seconds + job.trials * job.warmup_seconds) + SLOW_SECONDS * tier.runs
    deadline = slow * len(files) + job.cool_seconds + SPARE_SECONDS
    lock = f"{place.folder}/lock"
    return replace(job, libraries=tuple(libraries), lock=lock, deadline=deadline)


def _start(shell: Shell, run: str, program: str, job: Job) -> None:
    """Start the runner apart from the link, unless it is already at this very job or has just done it."""
    if _state(shell, run) in ("running", "done"):
        return
    folder = shlex.quote(run)
    make = f"rm -rf {folder} && mkdir {folder} && cat > {folder}/job"
    _well(shell, make, "write the job", job.text().encode())
    apart = f"(trap '' HUP; exec {shlex.quote(program)} job --out .) </dev/null >/dev/null 2>err"
    _well(shell, f"cd {folder} && {{ {apart} & echo $! > pid; }}", "start the runner")


def _state(shell: Shell, run: str) -> str:
    """absent, running, done or dead."""
    return _well(shell, _STATE.format(run=shlex.quote(run)), "ask for the run").strip()


def _wait(shell: Shell, run: str, every_seconds: float, patience_seconds: float) -> None:
    """Until the runner has left a result; it ends itself at its deadline, so this ends, too."""
    while True:
        state = _patiently(shell, patience_seconds, lambda: _state(shell, run))
        if state == "done":
            return
        if state != "running":
            said = shell.run(f"cat {shlex.quote(run)}/err 2>/dev/null")
            raise DeviceError(
                f"the runner on {shell.name} ended without a result: {_last(said.out)}",
                hint="was it killed, or the device restarted? out of memory is a usual cause",
            )
        time.sleep(every_seconds)


def _fetch(shell: Shell, run: str) -> list[dict[str, Any]]:
    """The records, complete and as many as the result says."""
    folder = shlex.quote(run)
    try:
        result = json.loads(_well(shell, f"cat {folder}/result.json", "fetch the result"))
        if result["status"] != "complete":
            raise DeviceError(f"measuring on {shell.name} failed: {result['error']}")
        text = _well(shell, f"cat {folder}/samples.ndjson", "fetch the samples", seconds=600.0)
        records = [json.loads(line) for line in text.splitlines()]
        whole = records[-1]["type"] == "end" and len(records) == result["records"] + 2
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DeviceError(f"the result of {shell.name} cannot be read") from error
    if not whole:
        raise DeviceError(f"the samples of {shell.name} are not complete")
    return records


def _stop(shell: Shell, run: str) -> None:
    """End the run if it still goes on, and remove what is left of it; without a link nothing can be done."""
    try:
        shell.run(_STOP.format(run=shlex.quote(run)))
    except DeviceError:
        return


def _patiently(shell: Shell, seconds: float, ask: Callable[[], Any]) -> Any:
    """What `ask` answers; when the link is lost it is made again, for `seconds`."""
    while True:
        try:
            return ask()
        except LinkLostError:
            _again(shell, seconds)


def _again(shell: Shell, seconds: float) -> None:
    stop = time.monotonic() + seconds
    while True:
        try:
            shell.reconnect()
            return
        except LinkLostError as error:
            if time.monotonic() > stop:
                raise LinkLostError(
                    f"the link to {shell.name} is lost: {error.message}",
                    hint="the measurement goes on there: the same command fetches it",
                ) from error
            time.sleep(POLL_SECONDS)


def _well(shell: Shell, command: str, purpose: str, sent: bytes = b"", seconds: float = 60.0) -> str:
    """What a command printed, when it ended with 0."""
    said = shell.run(command, sent=sent, seconds=seconds)
    if said.status != 0:
        raise DeviceError(f"cannot {purpose} on {shell.name}: {_last(said.err)}")
    return said.out.decode(errors="replace")


def _last(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
