"""A shell on a device, what a command there ended with, and patience with a link that breaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from toolchain.errors import DeviceError

RETRY_SECONDS: Final = 1.0
"""Between two attempts to make a link that was lost again."""
Value = TypeVar("Value")


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

    def close(self) -> None:
        """Drop the connection; what runs on the device goes on."""


def patiently(shell: Shell, seconds: float, ask: Callable[[], Value]) -> Value:
    """What `ask` answers; when the link is lost it is made again, for `seconds`.

    Raises:
        LinkLostError: the link stays away.
    """
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
            time.sleep(RETRY_SECONDS)


def at_last(shell: Shell, command: str) -> None:
    """Run what tidies up. A link that is lost is made again once; without one nothing can be done.

    Ctrl-C in a terminal ends the client's own helpers too (adb, a ProxyCommand), and the link with them.
    """
    for lost in (False, True):
        try:
            if lost:
                shell.reconnect()
            shell.run(command)
            return
        except LinkLostError:
            continue
        except DeviceError:
            return


def well(shell: Shell, command: str, purpose: str, sent: bytes = b"", seconds: float = 60.0) -> str:
    """What a command printed, when it ended with 0.

    Raises:
        LinkLostError: no exit status came back.
        DeviceError: it ended with another one.
    """
    said = shell.run(command, sent=sent, seconds=seconds)
    if said.status != 0:
        raise DeviceError(f"cannot {purpose} on {shell.name}: {last_line(said.err)}")
    return said.out.decode(errors="replace")


def last_line(text: bytes) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
