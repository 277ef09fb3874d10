"""What is set on a device while it measures, and put back by the device itself, however that ends.

The user asks for it in `~/.config/edgefit/devices.toml` or `edgefit.toml`, by the device's name. Old values
are written down on the device before the first one is changed. A guard process there, apart from the link,
puts them back when the runner has ended; where the guard itself was killed, the next connection does.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from toolchain.errors import InputError

HELD: Final = "settings"
"""The folder on the device that exists while something is set: `restore`, the guard's `pid`."""
TEGRASTATS: Final = "tegrastats"
UNITS: Final = ("all", "cpu_and_ne", "cpu_and_gpu", "cpu_only")
"""What Core ML may run a model on, as coremltools calls it; the first, as in an app, unless asked for."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a device is to be set while it measures; None: as it is. `sysfs` is where its kernel tells.

    `mhz` fixes the clock of every core, `power_mode` is nvpmodel's number, `jetson_clocks` fixes all of a
    Jetson's clocks, `fixed_performance` is Android's mode for measuring. `core` is where a one-thread run is
    pinned, `cores` where one of more is kept, on as many of the first as it has threads; `libraries` is a
    folder of this machine with the runtimes for Android. Of an iPhone: `bundle` is the runner app's
    identifier, `app` the .app to install, `compute_units` what Core ML may run on.
    """

    governor: str | None = None
    mhz: float | None = None
    power_mode: int | None = None
    jetson_clocks: bool = False
    fixed_performance: bool = False
    core: int = -1
    cores: tuple[int, ...] = ()
    libraries: str | None = None
    bundle: str | None = None
    app: str | None = None
    compute_units: str | None = None
    sysfs: str = "/sys"

    def said(self, governor: str | None) -> str | None:
        """The governor that measurements are taken under, with the power mode where one is set."""
        mode = None if self.power_mode is None else f"nvpmodel {self.power_mode}"
        clocks = "jetson_clocks" if self.jetson_clocks else None
        fixed = "fixed performance" if self.fixed_performance else None
        return ", ".join(x for x in (self.governor or governor, mode, clocks, fixed) if x) or None

    def script(self) -> str:
        """Shell text that writes what puts everything back into `restore`, then sets, or fails."""
        cpus = f"{shlex.quote(self.sysfs)}/devices/system/cpu/cpu[0-9]*/cpufreq"
        low, high = f"{cpus}/scaling_min_freq", f"{cpus}/scaling_max_freq"
        keep, put = [], []
        if self.mhz is not None:
            khz = str(round(self.mhz * 1000))
            # A minimum above the maximum is refused: whichever way the clock goes, one of the orders works.
            keep += [_keeping(low), _keeping(high), _keeping(low)]
            put += [_setting(low, khz, ":"), _setting(high, khz, ":"), _setting(low, khz, "fail clock")]
            put += [f'for f in {low} {high}; do [ "$(cat "$f")" = {khz} ] || fail clock; done']
        if self.governor is not None:
            files = f"{cpus}/scaling_governor"
            keep.append(_keeping(files))
            put.append(_setting(files, shlex.quote(self.governor), "fail governor"))
        if self.power_mode is not None:
            keep.append(
                'mode=$(nvpmodel -q | tail -n 1) && echo "nvpmodel -m $mode" >> restore || fail nvpmodel'
            )
            put.append(f"nvpmodel -m {self.power_mode} > /dev/null || fail nvpmodel")
        if self.jetson_clocks:
            keep.append('jetson_clocks --store "$PWD/clocks" > /dev/null || fail jetson_clocks')
            keep.append("echo \"jetson_clocks --restore '$PWD/clocks'\" >> restore")
            put.append("jetson_clocks > /dev/null || fail jetson_clocks")
        if self.fixed_performance:  # Android does not tell whether it was on: off is how phones come
            command = "cmd power set-fixed-performance-mode-enabled"
            keep.append(f"echo '{command} false' >> restore")
            put.append(f"{command} true > /dev/null || fail 'fixed performance'")
        return "\n".join([*keep, *put])


def _keeping(files: str) -> str:
    """Shell text that appends, for each of `files`, the command that gives it its value of now."""
    return f"""for f in {files}; do [ -f "$f" ] && echo "echo $(cat "$f") > '$f'" >> restore; done"""


def _setting(files: str, value: str, otherwise: str) -> str:
    return f'for f in {files}; do (echo {value} > "$f") 2> /dev/null || {otherwise}; done'


_GUARD: Final = """trap '' HUP INT TERM
run=$PWD
cd {held} || exit 1
put_back() {{ cd {held}; sh ./restore > /dev/null 2>&1; cd /; rm -rf {held}; }}
fail() {{ echo "$1 cannot be set: is it there, and are you allowed to?" >> "$run/err"; put_back; exit 1; }}
: > restore
{script}
cd "$run" || {{ put_back; exit 1; }}
if command -v tegrastats > /dev/null 2>&1; then
  (trap - TERM; exec tegrastats --interval 1000) > {tegrastats} 2> /dev/null &
  echo "grep -q tegrastats /proc/$!/cmdline && kill $!" >> {held}/restore
fi
(trap - TERM; exec {command}) > /dev/null 2>> err &
echo $! > pid
wait $!
put_back
"""
# Held by a guard that lives: busy. Held by one that was killed: what it set is put back first.
_FREE: Final = """if [ -d {held} ]; then
  if grep -q guard "/proc/$(cat {held}/pid 2> /dev/null)/cmdline" 2> /dev/null; then {busy}; fi
  [ ! -f {held}/restore ] || (cd {held} && sh ./restore > /dev/null 2>&1)
  rm -rf {held}
fi"""
BUSY: Final = 7
"""What starting a guard ends with where another measurement has the device."""


def free(folder: str) -> str:
    """Shell text that puts back what a guard that was killed has left; a guard that lives is left alone."""
    return _FREE.format(held=_held(folder), busy="exit 0")


def start(settings: Settings, folder: str, command: str) -> str:
    """Shell text that starts `command` of the runner in this folder under a guard, apart from the link."""
    held = _held(folder)
    guard = _GUARD.format(held=held, script=settings.script(), command=command, tegrastats=TEGRASTATS)
    return "\n".join(
        (
            _FREE.format(held=held, busy=f"exit {BUSY}"),
            f"mkdir {held} || {{ [ -d {held} ] && exit {BUSY}; exit 1; }}",
            f"printf %s {shlex.quote(guard)} > guard.sh",
            f"(trap '' HUP; exec sh ./guard.sh) < /dev/null > /dev/null 2> err & echo $! > {held}/pid",
        )
    )


def waiting(folder: str) -> str:
    """Shell text that waits until the guard has put everything back."""
    held = _held(folder)
    return f"for k in 1 2 3 4 5 6 7 8 9 10; do [ -d {held} ] || break; sleep 1; done"


def alive(folder: str) -> str:
    """Shell test of whether a guard is at work."""
    return f'grep -q guard "/proc/$(cat {_held(folder)}/pid 2> /dev/null)/cmdline" 2> /dev/null'


def _held(folder: str) -> str:
    return shlex.quote(f"{folder}/{HELD}")


def settings_of(device: str) -> Settings:
    """What the user's files ask for on `device`; `edgefit.toml` of this folder comes before the home's.

    Raises:
        InputError: a file cannot be read, or asks for what there is not.
    """
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    for path in (Path("edgefit.toml"), Path(home) / "edgefit" / "devices.toml"):
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8")).get("devices", {}).get(device)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"{path} cannot be read: {error}", hint="docs/runner.md shows one") from error
        if found is not None:
            return _settings(found, path, device)
    return Settings()


def _settings(found: Any, path: Path, device: str) -> Settings:
    known: dict[str, tuple[type, ...]] = {
        "governor": (str,),
        "mhz": (int, float),
        "power_mode": (int,),
        "jetson_clocks": (bool,),
        "fixed_performance": (bool,),
        "core": (int,),
        "cores": (list,),
        "libraries": (str,),
        "bundle": (str,),
        "app": (str,),
        "compute_units": (str,),
    }
    for name, value in found.items() if isinstance(found, dict) else [("", None)]:
        right = name in known and isinstance(value, known[name])
        if isinstance(value, list):
            right = right and all(type(each) is int and each >= 0 for each in value)
        right = right and (name != "compute_units" or value in UNITS)
        if not right or (isinstance(value, bool) and bool not in known[name]):
            raise InputError(
                f"{path}: '{name} = {value}' is no setting of {device}", hint=f"known: {', '.join(known)}"
            )
    return Settings(**found | {"cores": tuple(found.get("cores", ()))})
