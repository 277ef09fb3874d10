"""Reads what this machine is and the state it is in; what cannot be read is None, never guessed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from toolchain.values import Conditions

_CPU = Path("/sys/devices/system/cpu")


def read_conditions(
    *, device: str, runtime: str, distribution: str, threads: int, core: int | None = None
) -> Conditions:
    """The conditions now; `core` is the one whose clock and governor are read (default: the last allowed)."""
    allowed = _affinity()
    core = core if core is not None else (allowed[-1] if allowed else 0)
    return Conditions(
        device=device,
        os=f"{platform.system()} {platform.release()}",
        cpu=cpu_model(),
        governor=_text(_CPU / f"cpu{core}/cpufreq/scaling_governor"),
        frequency_mhz=_frequency_mhz(core),
        load=os.getloadavg() if hasattr(os, "getloadavg") else None,
        threads=threads,
        runtime=runtime,
        runtime_version=installed_version(distribution) or "unknown",
        affinity=None,
        max_mhz=_mhz(_CPU / f"cpu{core}/cpufreq/scaling_max_freq"),
        boost=_boost(),
    )


def cpu_model() -> str | None:
    """The CPU's name with what tells two of one name apart: family and model numbers where known."""
    if platform.system() == "Darwin":
        return _command("sysctl", "-n", "machdep.cpu.brand_string")
    fields = _cpuinfo()
    name = fields.get("model name") or fields.get("Model") or fields.get("Hardware")
    if name is None:
        part = fields.get("CPU part")
        return f"{platform.machine()} part {part}" if part else None
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model", "stepping") if key in fields]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    """The fields of the first processor in /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields


def _frequency_mhz(core: int) -> float | None:
    """The clock of `core` now, from cpufreq or from /proc/cpuinfo."""
    known = _mhz(_CPU / f"cpu{core}/cpufreq/scaling_cur_freq")
    if known is not None:
        return known
    blocks = (_text(Path("/proc/cpuinfo")) or "").split("\n\n")
    if core < len(blocks):
        for line in blocks[core].splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "cpu MHz":
                return float(value)
    return None


def _mhz(path: Path) -> float | None:
    """The frequency in a cpufreq file, which counts kHz."""
    khz = _text(path)
    return int(khz) / 1000 if khz is not None and khz.isdigit() else None


def _boost() -> bool | None:
    """Whether cores may go above their nominal clock, as cpufreq or Intel's driver says."""
    allowed, forbidden = _text(_CPU / "cpufreq/boost"), _text(_CPU / "intel_pstate/no_turbo")
    if allowed in ("0", "1"):
        return allowed == "1"
    return forbidden == "0" if forbidden in ("0", "1") else None


def _affinity() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _command(*words: str) -> str | None:
    if shutil.which(words[0]) is None:
        return None
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    return done.stdout.strip() or None if done.returncode == 0 else None
