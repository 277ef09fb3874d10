"""What a Jetson's tegrastats said while something was measured: power by rail, temperature by sensor."""

from __future__ import annotations

import re
from typing import Any, Final

_POWER: Final = re.compile(r"(\w+) (\d+)mW/\d+mW")
_OLD_POWER: Final = re.compile(r"(POM_\w+|VDD_\w+) (\d+)/\d+")
_CELSIUS: Final = re.compile(r"(\w+)@(-?\d+(?:\.\d+)?)C")


def watched(text: bytes) -> dict[str, Any]:
    """Mean milliwatts of every rail and the highest degrees of every sensor, over all lines.

    Lines are `... VDD_IN 5035mW/5035mW ... cpu@45.2C ...`; JetPack 4 leaves `mW` out. A sensor that is off
    says -256 degrees and is left out.
    """
    power: dict[str, list[int]] = {}
    celsius: dict[str, float] = {}
    lines = text.decode(errors="replace").splitlines()
    for line in lines:
        for rail, milliwatts in _POWER.findall(line) or _OLD_POWER.findall(line):
            power.setdefault(rail, []).append(int(milliwatts))
        for sensor, degrees in _CELSIUS.findall(line):
            if float(degrees) > -200:
                celsius[sensor] = max(celsius.get(sensor, float(degrees)), float(degrees))
    return {
        "lines": len(lines),
        "mean_mw": {rail: sum(found) / len(found) for rail, found in power.items()},
        "highest_celsius": celsius,
    }
