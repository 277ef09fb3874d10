"""Targets that are predicted: no driver reaches them yet."""

from __future__ import annotations

from collections.abc import Callable

from toolchain.contracts import Device
from toolchain.errors import DeviceError


def no_driver(name: str) -> Callable[[], Device]:
    """A `connect` that says what can be done instead of measuring."""

    def connect() -> Device:
        raise DeviceError(
            f"{name} cannot be measured yet: there is no driver for it",
            hint=f"edgefit predict MODEL --target {name} estimates its latency from published measurements",
        )

    return connect
