"""Targets that are predicted as long as no device is named."""

from __future__ import annotations

from collections.abc import Callable

from toolchain.contracts import Device
from toolchain.errors import DeviceError


def no_driver(name: str) -> Callable[[], Device]:
    """A `connect` that says what can be done instead of measuring."""

    def connect() -> Device:
        raise DeviceError(
            f"{name} is measured on a device that --device names",
            hint="edgefit devices shows what is reached; "
            f"edgefit predict MODEL --target {name} estimates from published measurements",
        )

    return connect
