"""The runner on a device behind a shell: sent by content, run apart from the link, believed when complete.

Only a POSIX shell is needed there (BusyBox is enough). Everything lies in one folder of the device:
`files/HASH` for what was sent, `runs/KEY` for one measurement, removed when its result was fetched.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from targets._shared import settings
from targets._shared.bundling import fetch_library, given_library
from targets._shared.runner import ANDROID, Job, Library, installed_library, native, runner, version
from targets._shared.settings import Settings
from targets._shared.shell import LinkLostError, Shell, at_last, last_line, patiently, well
from toolchain.artifacts import content_hash
from toolchain.errors import DeviceError

ARCHITECTURES: Final = {"x86_64": "x86_64", "aarch64": "aarch64", "armv7l": "armv7", "armv8l": "armv7"}
FIRST_SECONDS, POLL_SECONDS = 0.1, 1.0
"""Before the second question and, later, between two: or a twentieth of a longer measurement."""
SMALL_BYTES: Final = 2**16
LIBRARY_REFUSED, MODEL_REFUSED = 3, 4
"""Exit statuses of the runner (docs/runner.md)."""
_PLACES: Final = '"${HOME:-/nonexistent}/.cache/edgefit" /var/tmp/edgefit /tmp/edgefit /dev/shm/edgefit'
_PROBE: Final = f"""uname -sm
if [ -x /system/bin/getprop ]; then echo android; else echo linux; fi
[ -d /data/local/tmp ] && phone=/data/local/tmp/edgefit || phone=
for d in $phone {_PLACES}; do
  mkdir -p "$d/files" "$d/runs" 2>/dev/null || continue
  (printf '#!/bin/sh\\nexit 0\\n' > "$d/.try" && chmod 700 "$d/.try") 2>/dev/null || continue
  if "$d/.try" 2>/dev/null; then rm -f "$d/.try"; echo "$d"; break; fi
  rm -f "$d/.try"
done"""
_STATE: Final = """cd {run} 2>/dev/null || {{ echo absent; exit 0; }}
if [ -f result.json ]; then echo done
elif [ -f pid ] && grep -q edgefit "/proc/$(cat pid)/cmdline" 2>/dev/null; then echo running
elif {alive}; then echo running
elif [ -f result.json ]; then echo done
else echo dead; fi"""
# What it said last; with nothing said, whether anything can still be written there.
_WHY: Final = """cd {run} && cat err 2>/dev/null
[ -s err ] || (head -c 65536 /dev/zero | cat > try) 2>&1; rm -f try"""
_STOP: Final = """cd {run} 2>/dev/null || exit 0
if [ -f pid ] && grep -q edgefit "/proc/$(cat pid)/cmdline" 2>/dev/null; then
  kill "$(cat pid)" 2>/dev/null
  for k in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$(cat pid)" 2>/dev/null || break; sleep 1; done
  kill -9 "$(cat pid)" 2>/dev/null
fi
cd / && rm -rf {run}
{waiting}
{free}"""


class _RefusedError(DeviceError):
    """The runner refused a library or a model: what was sent is of no use."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a device is and where on it there is room for programs."""

    arch: str
    folder: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The records of a job, and the other files that it left, by name."""

    records: tuple[dict[str, Any], ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Station:
    """A device behind `shell` with the runner on it. A lost link is made again for `patience_seconds`."""

    shell: Shell
    place: Place
    program: str
    patience_seconds: float
    settings: Settings = field(default_factory=Settings)
    _sent: dict[str, str] = field(default_factory=dict)

    def send(self, path: Path, *, known: str | None = None) -> str:
        """Where the file lies on the device, sent there unless a file of its content is there already."""
        digest = known or content_hash(path)
        if digest not in self._sent:
            self._sent[digest] = self._patiently(lambda: _upload(self.shell, self.place, path, known=digest))
        return self._sent[digest]

    def forget(self, paths: Sequence[str]) -> None:
        """Remove what was sent and is of no use to a later run; without a link nothing can be done."""
        for digest in [digest for digest, path in self._sent.items() if path in paths]:
            del self._sent[digest]
        try:
            self.shell.run("rm -f " + " ".join(map(shlex.quote, paths)))
        except DeviceError:
            return

    def library(self, runtime: str) -> Library:
        """The library of `runtime`, on the device."""
        here = _library(runtime, self.place.arch, self.settings.libraries)
        return replace(here, path=self.send(Path(here.path)))

    def version(self, runtime: str) -> str:
        """The version of the runtime that measures there."""
        return _library(runtime, self.place.arch, self.settings.libraries).version

    def conditions(self) -> dict[str, Any]:
        """The state of the device now, as the runner tells it."""
        command = f"{shlex.quote(self.program)} --conditions"
        text = self._patiently(lambda: well(self.shell, command, "read the conditions"))
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise DeviceError(f"the conditions of {self.shell.name} cannot be read") from error
        return found

    def run(self, job: Job, *, every_seconds: float = POLL_SECONDS, files: str = "") -> Answer:
        """What the runner on the device answers to `job`, and the files it left that begin with `files`.

        It runs apart from the link. A run that an earlier call lost is found again by what it measures.

        Raises:
            LinkLostError: the link stays away; the run goes on.
            DeviceError: the measurement is not complete. A file that the runner refused is not kept there.
        """
        cores = self.settings.cores[: job.threads]
        job = replace(job, lock=f"{self.place.folder}/lock", core=self.settings.core, cores=cores)
        command = f"{shlex.quote(self.program)} job --out ."
        try:
            return self.carry(job.text(), command, every_seconds=every_seconds, files=files)
        except _RefusedError:
            self.forget([model.path for model in job.models] + [library.path for library in job.libraries])
            raise

    def carry(self, text: str, command: str, *, every_seconds: float, files: str) -> Answer:
        """As `run`, for a `command` that finds `text` in the file `job` and leaves what the runner would."""
        folder = self.place.folder
        start = settings.start(self.settings, folder, command)
        key = hashlib.sha256((text + start).encode()).hexdigest()[:16]
        run = f"{self.place.folder}/runs/{key}"
        try:
            self._patiently(lambda: _start(self.shell, folder, run, start, text))
            _wait(self.shell, folder, run, every_seconds, self.patience_seconds)
            records = self._patiently(lambda: _fetch(self.shell, run))
            left = self._patiently(lambda: _files(self.shell, run, files)) if files else {}
        except LinkLostError:
            raise
        except BaseException:
            _stop(self.shell, folder, run)
            raise
        _stop(self.shell, folder, run)
        return Answer(records=tuple(records), files=left)

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        return patiently(self.shell, self.patience_seconds, ask)


def reach(shell: Shell, patience_seconds: float, asked: Settings | None = None) -> Station:
    """Look at the device behind `shell`, and put the runner there unless it is there.

    What a measurement that was killed has left set is put back.

    Raises:
        DeviceError: no runner for it, no room, or the runner does not run there.
    """
    place = patiently(shell, patience_seconds, lambda: _probe(shell))
    here = runner(place.arch)
    program = patiently(shell, patience_seconds, lambda: _upload(shell, place, here, executable=True))
    patiently(shell, patience_seconds, lambda: _require_runs(shell, program))
    patiently(shell, patience_seconds, lambda: well(shell, settings.free(place.folder), "put things back"))
    return Station(
        shell=shell,
        place=place,
        program=program,
        patience_seconds=patience_seconds,
        settings=asked or Settings(),
    )


def _probe(shell: Shell) -> Place:
    lines = well(shell, _PROBE, "look around").splitlines()
    system, _, machine = (lines[0] if lines else "").partition(" ")
    arch = ARCHITECTURES.get(machine.strip())
    if system != "Linux" or arch is None:
        raise DeviceError(
            f"{shell.name} is {lines[0] if lines else 'silent'}: there is no runner for it",
            hint=f"runners are built for Linux on {', '.join(ARCHITECTURES)}",
        )
    if len(lines) < 3:
        raise DeviceError(
            f"{shell.name} has no folder that can be written and run from",
            hint="tried the home folder, /var/tmp, /tmp and /dev/shm",
        )
    if lines[1] == "android":
        if arch != "aarch64":
            raise DeviceError(f"{shell.name} is a phone of 32 bits: there is no runner for it")
        arch = ANDROID
    return Place(arch=arch, folder=lines[2])


def _library(runtime: str, arch: str, folder: str | None) -> Library:
    if arch == ANDROID:
        return given_library(runtime, folder)
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
    look = f"wc -c < {quoted} 2>/dev/null || echo none"
    mode = "700" if executable else "600"
    # A link that breaks looks like the end of the file: only its size tells.
    whole = f'[ "$(wc -c < {partial})" -eq {size} ]'
    write = f"cat > {partial} && {whole} && chmod {mode} {partial} && mv {partial} {quoted}"
    clean = f"{write} || {{ rm -f {partial}; exit 1; }}"
    if size <= SMALL_BYTES:  # asking first would take as long as sending
        clean = f'if [ "$({look})" -eq {size} ] 2>/dev/null; then cat > /dev/null; else {clean}; fi'
    elif well(shell, look, "look for files").strip() == str(size):
        return target
    said = shell.run(clean, sent=path.read_bytes(), seconds=600.0)
    if said.status != 0:
        raise DeviceError(f"cannot send {path.name} to {shell.name}: {last_line(said.err)}")
    return target


def _require_runs(shell: Shell, program: str) -> None:
    said = shell.run(f"{shlex.quote(program)} --version")
    if said.status != 0 or version() not in said.out.decode(errors="replace"):
        raise DeviceError(
            f"the runner does not run on {shell.name}: {last_line(said.err)}",
            hint="it needs a glibc no older than that of the machine it was built on",
        )


def _start(shell: Shell, device_folder: str, run: str, start: str, text: str) -> None:
    """Start the runner apart from the link, unless it is already at this very job or has just done it."""
    if _state(shell, device_folder, run) in ("running", "done"):
        return
    folder = shlex.quote(run)
    make = f"rm -rf {folder} && mkdir {folder} && cat > {folder}/job"
    well(shell, make, "write the job", text.encode())
    said = shell.run(f"cd {folder} || exit 1\n{start}")
    if said.status == settings.BUSY:
        raise DeviceError(f"another measurement is running on this device, {shell.name}")
    if said.status != 0:
        raise DeviceError(f"cannot start the runner on {shell.name}: {last_line(said.err)}")


def _state(shell: Shell, device_folder: str, run: str) -> str:
    """absent, running, done or dead."""
    command = _STATE.format(run=shlex.quote(run), alive=settings.alive(device_folder))
    return well(shell, command, "ask for the run").strip()


def _wait(shell: Shell, device_folder: str, run: str, every_seconds: float, patience_seconds: float) -> None:
    """Until the runner has left a result; it ends itself at its deadline, so this ends, too.

    Asked soon at first, then ever more rarely, so that short jobs are short and long ones not disturbed.
    """
    pause = min(FIRST_SECONDS, every_seconds)
    while True:
        state = patiently(shell, patience_seconds, lambda: _state(shell, device_folder, run))
        if state == "done":
            return
        if state == "absent":
            raise DeviceError(
                f"the measurement on {shell.name} was removed while it ran",
                hint="was the same command started twice? one of the two gets the result",
            )
        if state != "running":
            said = shell.run(_WHY.format(run=shlex.quote(run)))
            raise DeviceError(
                f"the runner on {shell.name} ended without a result: {last_line(said.out)}",
                hint="was it killed, or the device restarted? out of memory is a usual cause",
            )
        time.sleep(pause)
        pause = min(2 * pause, every_seconds)


def _fetch(shell: Shell, run: str) -> list[dict[str, Any]]:
    """The records, complete and as many as the result says."""
    folder = shlex.quote(run)
    try:
        result = json.loads(well(shell, f"cat {folder}/result.json", "fetch the result"))
        if result["status"] != "complete":
            refused = result.get("exit_code") in (LIBRARY_REFUSED, MODEL_REFUSED)
            kind = _RefusedError if refused else DeviceError
            raise kind(f"measuring on {shell.name} failed: {result['error']}")
        text = well(shell, f"cat {folder}/samples.ndjson", "fetch the samples", seconds=600.0)
        records = [json.loads(line) for line in text.splitlines()]
        whole = records[-1]["type"] == "end" and len(records) == result["records"] + 2
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DeviceError(f"the result of {shell.name} cannot be read") from error
    if not whole:
        raise DeviceError(f"the samples of {shell.name} are not complete")
    return records


def _files(shell: Shell, run: str, begin: str) -> dict[str, bytes]:
    """The files of a run whose names begin so."""
    folder = shlex.quote(run)
    names = well(shell, f"cd {folder} && ls", "list the results").split()
    found = {}
    for name in names:
        if name.startswith(begin):
            said = shell.run(f"cat {folder}/{shlex.quote(name)}", seconds=600.0)
            if said.status != 0:
                raise DeviceError(f"cannot fetch {name} from {shell.name}: {last_line(said.err)}")
            found[name] = said.out
    return found


def _stop(shell: Shell, device_folder: str, run: str) -> None:
    """End the run if it still goes on, and remove what is left of it."""
    done, back = settings.waiting(device_folder), settings.free(device_folder)
    at_last(shell, _STOP.format(run=shlex.quote(run), waiting=done, free=back))
