"""pymobiledevice3, github.com/doronz88/pymobiledevice3: GPL-3.0, so only ever a process of its own.

Its exit status is 0 after most failures; what it says on standard error is what counts.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from targets._shared.phone_tools import (
    ASK_SECONDS,
    COPY_SECONDS,
    DOCUMENTS,
    Seen,
    among,
    ask,
    complaint,
    device,
)
from toolchain.errors import DeviceError

_FAILED: Final = re.compile(r"\bERROR\b|Traceback|^Error|Usage:", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class PyMobile:
    """As `Tool`, on Linux and elsewhere."""

    program: str
    name: str = "pymobiledevice3"

    def phones(self) -> tuple[Seen, ...]:
        """As `Tool.phones`; those that it cannot talk to are not in its list."""
        text = self._run(["usbmux", "list"], what="list", name="the phones")
        try:
            listed = {entry["Identifier"]: entry for entry in json.loads(text)}
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceError(
                "cannot list the phones: pymobiledevice3 answered something unreadable"
            ) from error
        return tuple(
            Seen(
                udid=udid,
                kind=entry.get("ProductType") or "iPhone",
                version=entry.get("ProductVersion") or "unknown",
            )
            for udid, entry in listed.items()
        )

    def require_ready(self, udid: str) -> None:
        """As `Tool.require_ready`."""
        among(self.phones(), udid)
        words = ["amfi", "developer-mode-status", "--udid", udid]
        if self._run(words, what="ask", name=device(udid)).strip() == "false":
            raise complaint(device(udid), "use", "developer mode")

    def install(self, udid: str, app: Path) -> None:
        """As `Tool.install`."""
        words = ["apps", "install", str(app), "--udid", udid]
        self._run(words, what="install the runner app on", name=device(udid), seconds=COPY_SECONDS)

    def push(self, udid: str, bundle: str, here: Path, name: str) -> None:
        """As `Tool.push`."""
        words = ["apps", "push", bundle, str(here), f"/{DOCUMENTS}/{name}", "--udid", udid]
        self._run(words, what="send a file to", name=device(udid), seconds=COPY_SECONDS)

    def pull(self, udid: str, bundle: str, name: str) -> bytes | None:
        """As `Tool.pull`."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / name
            words = ["apps", "pull", bundle, f"/{DOCUMENTS}/{name}", str(target), "--udid", udid]
            try:
                self._run(words, what="fetch a file from", name=device(udid), seconds=COPY_SECONDS)
            except DeviceError as error:
                if re.search(r"not found during afc|OBJECT_NOT_FOUND|AfcFileNotFound", error.message):
                    return None
                raise
            return target.read_bytes() if target.is_file() else None

    def launch(self, udid: str, bundle: str, argument: str) -> None:
        """As `Tool.launch`."""
        words = ["developer", "dvt", "launch", f"{bundle} {argument}", "--udid", udid]
        text = self._run(words, what="start the runner on", name=device(udid))
        if "launched with pid" not in text:
            raise DeviceError(f"cannot start the runner on {device(udid)}: pymobiledevice3 names no process")

    def _run(self, words: list[str], *, what: str, name: str, seconds: float = ASK_SECONDS) -> str:
        done = ask([self.program, *words], seconds=seconds)
        if done.status != 0 or _FAILED.search(done.err):
            raise complaint(name, what, _complaint(done.err or done.out))
        return done.out


def _complaint(text: str) -> str:
    """From the last error on: a retry over a tunnel is told before it."""
    lines = text.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if re.search(r"\bERROR\b|^\S*(Error|Exception)\b", lines[number]):
            return " ".join(lines[number:])
    return text
