"""An Android phone, or anything that runs adbd, through the `adb` client: `--device adb:SERIAL`."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from targets._shared.distant import Behind, Distant
from targets._shared.runner import NDK, ndk_compiler
from targets._shared.settings import settings_of
from targets._shared.shell import LinkLostError, Said, patiently
from targets.host import TARGET
from toolchain.contracts import Benched, BenchSettings, ModelFile, Need, Progress, Reachable, Route
from toolchain.errors import DeviceError

CONNECT_SECONDS: Final = 15.0
LEAST_BATTERY: Final = 20
"""Percent under which phones begin to save power."""
MODERATE: Final = 2
"""Thermal status of Android from which it slows down (android.os.PowerManager.THERMAL_STATUS_MODERATE)."""
COOL_SECONDS: Final = 600.0
_PORT: Final = re.compile(r"\S+:\d+")
_CORES: Final = """for c in {sysfs}/devices/system/cpu/cpu[0-9]*; do
  [ "$(cat "$c/online" 2> /dev/null)" != 0 ] || continue
  echo "${{c##*/cpu}} $(cat "$c/cpu_capacity" 2> /dev/null || cat "$c/cpufreq/cpuinfo_max_freq" 2> /dev/null)"
done"""


@dataclass(kw_only=True)
class AdbShell:
    """Commands over `adb shell`. Its exit status is not believed: a sentinel says that a command ended."""

    serial: str

    @property
    def name(self) -> str:
        """As it is written after --device."""
        return f"adb:{self.serial}"

    def connect(self) -> None:
        """Make sure that adb reaches the device; one on the network (HOST:PORT) is connected first.

        Raises:
            DeviceError: the device does not let us in.
            LinkLostError: it is not there.
        """
        if _PORT.fullmatch(self.serial):
            _adb("connect", self.serial, seconds=CONNECT_SECONDS)
        done = _adb("-s", self.serial, "get-state", seconds=CONNECT_SECONDS)
        # What is said of a server that had to be started first goes to standard error.
        said = _flat(done.stdout or done.stderr)
        if "unauthorized" in said:
            raise DeviceError(
                f"{self.name} does not let us in",
                hint="unlock it and allow USB debugging",
            )
        if done.returncode != 0 or said != "device":
            raise LinkLostError(
                f"cannot reach {self.name}: {said}", hint="adb devices -l shows what is there"
            )

    def run(self, command: str, *, sent: bytes = b"", seconds: float = 60.0) -> Said:
        """As `Shell.run`."""
        mark = f"edgefit-{secrets.token_hex(8)}"
        wrapped = f"(\n{command}\n)\nprintf '{mark} %s' $?"
        done = _adb("-s", self.serial, "shell", "-T", wrapped, sent=sent, seconds=seconds)
        out, found, status = done.stdout.rpartition(mark.encode())
        if not found or not status.strip().isdigit():
            # adb gives 0 when the daemon dies in the middle of a command.
            raise LinkLostError(f"the link to {self.name} broke: {_flat(done.stderr) or 'no answer'}")
        return Said(status=int(status), out=out, err=done.stderr)

    def reconnect(self) -> None:
        """As `Shell.reconnect`."""
        self.connect()

    def close(self) -> None:
        """Adb's server keeps the connection, as for every other program."""


@dataclass(frozen=True, kw_only=True)
class Phone(Behind):
    """A device behind adb. Heat is waited for, a low battery refused."""

    shell: AdbShell
    sleep: Callable[[float], None] = field(default=time.sleep)

    def bench(self, files: Sequence[ModelFile], settings: BenchSettings, progress: Progress) -> Benched:
        """As `Behind.bench`, with what Android says of battery and heat before and after."""
        before = self.gate()
        found = super().bench(files, settings, progress)
        try:
            after = self.android()
        except LinkLostError:  # what was measured stands
            after = dict.fromkeys(before)
        return replace(found, before={**found.before, **before}, after={**(found.after or {}), **after})

    def device(self) -> Distant:
        """As `Behind.device`; before each measurement it waits until it is cool."""
        return replace(super().device(), ready=self.gate)

    def gate(self) -> dict[str, float | None]:
        """Android's state, once it is cool.

        Raises:
            DeviceError: the battery is low, or it stays hot.
        """
        stop = time.monotonic() + COOL_SECONDS
        while (found := self.android())["thermal_status"] is not None and found["thermal_status"] >= MODERATE:
            if time.monotonic() > stop:
                raise DeviceError(
                    f"{self.shell.name} stays hot: thermal status {found['thermal_status']:.0f}",
                    hint="let it cool: out of its case, screen off",
                )
            self.sleep(5.0)
        level = found["battery_level"]
        if level is not None and level < LEAST_BATTERY:
            raise DeviceError(
                f"the battery of {self.shell.name} has {level:.0f} %, {LEAST_BATTERY} % are needed",
                hint="charge it first: phones save power when the battery is low",
            )
        return found

    def android(self) -> dict[str, float | None]:
        """Battery percent and degrees, thermal status (0: none); None where the device does not say."""
        ask = "dumpsys battery; dumpsys thermalservice"
        said = patiently(self.shell, self.patience_seconds, lambda: self.shell.run(ask))
        text = said.out.decode(errors="replace")

        def number(pattern: str, scale: float = 1.0) -> float | None:
            found = re.search(pattern, text, re.MULTILINE)
            return None if found is None else float(found[1]) * scale

        return {
            "battery_level": number(r"^\s*level: (\d+)"),
            "battery_celsius": number(r"^\s*temperature: (-?\d+)", 0.1),
            "thermal_status": number(r"^\s*Thermal Status: (\d+)"),
        }


def by_speed(text: str) -> tuple[int, ...]:
    """The cores from the highest capacity (or clock) down, of equal ones the last first.

    Empty where the device does not say, or all are alike. `text` has a line `NUMBER VALUE` for each core.
    """
    cores = [line.split() for line in text.splitlines()]
    known = sorted(((int(c[1]), int(c[0])) for c in cores if len(c) == 2), reverse=True)
    return tuple(number for _, number in known) if len({value for value, _ in known}) > 1 else ()


def _open(rest: str) -> Phone:
    serial = rest or _only()
    if not re.fullmatch(r"[\w.:\[\]-]+", serial) or serial.startswith("-"):
        raise DeviceError(f"unknown device {'adb:' + rest!r}", hint="adb:SERIAL, as `adb devices` shows it")
    shell = AdbShell(serial=serial)
    shell.connect()
    settings = settings_of(shell.name)
    if settings.core < 0 or not settings.cores:
        text = shell.run(_CORES.format(sysfs=settings.sysfs)).out.decode(errors="replace")
        cores = settings.cores or by_speed(text)
        core = cores[0] if settings.core < 0 and cores else settings.core
        settings = replace(settings, core=core, cores=cores)
    return Phone(shell=shell, runtimes=TARGET.runtimes, settings=settings)


def _only() -> str:
    """The serial of the one device that is there."""
    there = [serial for serial, state in _devices() if state == "device"]
    if len(there) != 1:
        known = ", ".join(f"adb:{serial}" for serial in there)
        raise DeviceError(
            f"{len(there)} devices are connected to adb",
            hint=f"name one of {known}" if there else "adb devices",
        )
    return there[0]


def _devices() -> list[tuple[str, str]]:
    """Serial and state of all that adb knows."""
    lines = _adb("devices", seconds=CONNECT_SECONDS).stdout.decode(errors="replace").splitlines()
    pairs = [line.split("\t") for line in lines if "\t" in line]
    return [(serial, state.strip()) for serial, state, *_ in pairs]


def _adb(*words: str, sent: bytes = b"", seconds: float) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("adb")
    if program is None:
        raise DeviceError("there is no adb", hint="apt-get install adb")
    given: dict[str, object] = {"input": sent} if sent else {"stdin": subprocess.DEVNULL}
    try:
        return subprocess.run([program, *words], capture_output=True, check=False, timeout=seconds, **given)  # type: ignore[call-overload,no-any-return]
    except subprocess.TimeoutExpired as error:
        raise LinkLostError(f"adb {words[0]} did not answer within {seconds:.0f} s") from error


def _found() -> tuple[Reachable, ...]:
    if shutil.which("adb") is None:
        return ()
    hints = {"unauthorized": "unlock it and confirm the question", "offline": "plug it in again"}
    return tuple(
        Reachable(
            device=f"adb:{serial}",
            summary="behind adb",
            missing="" if state == "device" else f"a device that is not {state}",
            hint="" if state == "device" else hints.get(state, "adb devices -l"),
        )
        for serial, state in _devices()
    )


def _needs() -> tuple[Need, ...]:
    ndk = ndk_compiler()
    return (
        Need(name="adb", found=shutil.which("adb") or "", hint="apt-get install adb"),
        Need(
            name="the Android NDK, for a phone's runner",
            found="" if ndk is None else str(ndk),
            hint=f"unpack it and let {NDK} name its folder",
        ),
    )


def _flat(text: bytes) -> str:
    return " ".join(text.decode(errors="replace").split())


ROUTE: Final = Route(
    name="adb",
    form="adb:SERIAL",
    summary="an Android phone, or anything that runs adbd",
    open=_open,
    found=_found,
    needs=_needs,
)
