"""A Linux machine behind SSH, `--device ssh://USER@HOST[:PORT]`, with the user's configuration and keys."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from targets._shared import tensorrt
from targets._shared.distant import Behind
from targets._shared.runner import ARCHITECTURES, compiler, runner
from targets._shared.settings import settings_of
from targets._shared.shell import LinkLostError, Said
from targets.host import TARGET
from toolchain.contracts import Need, Reachable, Route
from toolchain.errors import DeviceError

CONNECT_SECONDS: Final = 20.0
SETTLE_SECONDS: Final = 0.1


@dataclass(kw_only=True)
class SshShell:
    """Commands over one SSH connection.

    asyncssh reads ~/.ssh/config, keys and known_hosts; a host whose key is not known is refused.
    """

    host: str
    user: str | None = None
    port: int | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _link: Any = None

    @property
    def name(self) -> str:
        """As it is written after --device."""
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{self.host}{f':{self.port}' if self.port else ''}"

    def connect(self) -> None:
        """Open the connection.

        Raises:
            DeviceError: the host key is unknown or another one, or nobody lets us in.
            LinkLostError: the host does not answer.
        """
        import asyncssh

        known = {"username": self.user, "port": self.port}
        options = {key: value for key, value in known.items() if value is not None}
        opening = asyncssh.connect(self.host, keepalive_interval=5, keepalive_count_max=3, **options)
        try:
            self._link = self._wait(opening, CONNECT_SECONDS)
        except asyncssh.HostKeyNotVerifiable as error:
            self.close()
            raise DeviceError(
                f"the host key of {self.name} is not the one that is known: {_flat(error)}",
                hint=f"if you trust it: ssh {self.host} once, and confirm its key",
            ) from error
        except asyncssh.PermissionDenied as error:
            self.close()
            raise DeviceError(
                f"{self.name} does not let us in: {_flat(error)}", hint="is your key in its authorized_keys?"
            ) from error
        except (OSError, asyncssh.Error, TimeoutError) as error:
            self.close()
            raise LinkLostError(
                f"cannot reach {self.name}: {_flat(error)}", hint=f"does `ssh {self.host}` work?"
            ) from error

    def run(self, command: str, *, sent: bytes = b"", seconds: float = 60.0) -> Said:
        """As `Shell.run`."""
        import asyncssh

        if self._link is None:
            raise LinkLostError(f"no connection to {self.name}")
        # Without anything to send, standard input would stay open.
        given: dict[str, Any] = {"input": sent} if sent else {"stdin": asyncssh.DEVNULL}
        asked = self._link.run(command, encoding=None, **given)
        try:
            done = self._wait(asked, seconds)
        except (OSError, asyncssh.Error, TimeoutError) as error:
            self.close()
            raise LinkLostError(f"the link to {self.name} broke: {_flat(error)}") from error
        if done.exit_status is None or done.exit_status < 0:
            # A link that drops gives no error here, only no status.
            self.close()
            raise LinkLostError(f"the link to {self.name} broke while a command ran")
        return Said(status=done.exit_status, out=done.stdout, err=done.stderr)

    def reconnect(self) -> None:
        """As `Shell.reconnect`."""
        self.close()
        self.connect()

    def close(self) -> None:
        """Drop the connection; what runs on the device goes on."""
        if self._link is not None:
            self._link.abort()
            self._link = None
        if self._loop is not None:
            # A ProxyCommand's pipes are closed by the loop: it must outlive them.
            gc.collect()
            self._loop.run_until_complete(asyncio.sleep(SETTLE_SECONDS))
            self._loop.close()
            self._loop = None

    def _wait(self, asked: Coroutine[Any, Any, Any], seconds: float) -> Any:
        """What `asked` gives, within `seconds`."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(asyncio.wait_for(asked, seconds))


def _open(rest: str) -> Behind:
    shell = _shell(rest)
    if importlib.util.find_spec("asyncssh") is None:
        raise DeviceError("ssh needs the package asyncssh", hint="pip install 'edgefit[ssh]'")
    shell.connect()
    more = (tensorrt.RUNTIME,) if tensorrt.trtexec_of(shell) else ()
    return Behind(shell=shell, runtimes=(*TARGET.runtimes, *more), settings=settings_of(shell.name))


def _shell(rest: str) -> SshShell:
    try:
        parts = urlsplit(f"ssh:{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    plain = rest.isprintable() and " " not in rest
    if not rest.startswith("//") or not plain or not host or parts.path or parts.query or parts.password:
        raise DeviceError(
            f"unknown device {'ssh:' + rest!r}",
            hint="a device behind SSH is ssh://USER@HOST or ssh://HOST:PORT",
        )
    return SshShell(host=host, user=parts.username, port=port)


def _needs() -> tuple[Need, ...]:
    """The client, and a runner for each architecture (those of the devices at hand are enough)."""
    client = "asyncssh" if importlib.util.find_spec("asyncssh") else ""
    needs = [Need(name="SSH client", found=client, hint="pip install 'edgefit[ssh]'")]
    for arch in ARCHITECTURES:
        try:
            found, hint = runner(arch).name, ""
        except DeviceError as error:
            found, hint = "", error.hint or f"a compiler: {compiler(arch)}"
        needs.append(Need(name=f"runner for {arch}", found=found, hint=hint))
    return tuple(needs)


def _found() -> tuple[Reachable, ...]:
    """Nobody is asked who is there: hosts are the user's to name."""
    return ()


def _flat(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


ROUTE: Final = Route(
    name="ssh",
    form="ssh://USER@HOST[:PORT]",
    summary="a Linux machine behind SSH: boards, cameras, Jetson (its CPU)",
    open=_open,
    found=_found,
    needs=_needs,
)
