"""go-ios (`ios`), github.com/danielpaulus/go-ios.

Answers are JSON on standard output, complaints JSON lines on standard error.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class GoIos:
    """As `Tool`, on Linux and elsewhere. Starting apps on iOS 17 needs `ios tunnel start` beside it."""

    program: str
    name: str = "go-ios"

    def phones(self) -> tuple[Seen, ...]:
        """As `Tool.phones`. A phone on USB and on the network is listed twice."""
        listed = self._answer(["list"], what="list", name="the phones").get("deviceList", ())
        return tuple(self._seen(udid) for udid in dict.fromkeys(listed) if isinstance(udid, str))

    def require_ready(self, udid: str) -> None:
        """As `Tool.require_ready`; go-ios does not tell of locks, starting the app does."""
        among(self.phones(), udid)
        words = ["devmode", "get", f"--udid={udid}"]
        if self._answer(words, what="ask", name=device(udid)).get("DeveloperModeEnabled") is False:
            raise complaint(device(udid), "use", "developer mode")

    def install(self, udid: str, app: Path) -> None:
        """As `Tool.install`."""
        words = ["install", f"--path={app}", f"--udid={udid}"]
        self._run(words, what="install the runner app on", name=device(udid), seconds=COPY_SECONDS)

    def push(self, udid: str, bundle: str, here: Path, name: str) -> None:
        """As `Tool.push`."""
        words = ["fsync", f"--app={bundle}", "push", f"--srcPath={here}", f"--dstPath=/{DOCUMENTS}/{name}"]
        words.append(f"--udid={udid}")
        self._run(words, what="send a file to", name=device(udid), seconds=COPY_SECONDS)

    def pull(self, udid: str, bundle: str, name: str) -> bytes | None:
        """As `Tool.pull`; go-ios takes the folder to put the file in."""
        with tempfile.TemporaryDirectory() as folder:
            words = ["fsync", f"--app={bundle}", "pull", f"--srcPath=/{DOCUMENTS}/{name}"]
            words += [f"--dstPath={folder}", f"--udid={udid}"]
            try:
                self._run(words, what="fetch a file from", name=device(udid), seconds=COPY_SECONDS)
            except DeviceError as error:
                if "ObjectNotFound" in error.message:
                    return None
                raise
            target = Path(folder) / name
            return target.read_bytes() if target.is_file() else None

    def launch(self, udid: str, bundle: str, argument: str) -> None:
        """As `Tool.launch`."""
        words = ["launch", bundle, "--kill-existing", f"--arg={argument}", f"--udid={udid}"]
        self._run(words, what="start the runner on", name=device(udid))

    def _seen(self, udid: str) -> Seen:
        try:
            found = self._answer(["info", f"--udid={udid}"], what="ask", name=device(udid))
        except DeviceError as error:
            return Seen(
                udid=udid,
                missing=f"a phone that {error.message.removeprefix(device(udid)).strip()}",
                hint=error.hint,
            )
        return Seen(
            udid=udid,
            kind=found.get("ProductType") or "iPhone",
            version=found.get("ProductVersion") or "unknown",
        )

    def _answer(self, words: list[str], *, what: str, name: str) -> dict[str, Any]:
        """The JSON object that a command printed."""
        text = self._run(words, what=what, name=name)
        try:
            found = json.loads(text)
        except ValueError as error:
            raise DeviceError(f"cannot {what} {name}: go-ios answered something unreadable") from error
        return found if isinstance(found, dict) else {}

    def _run(self, words: list[str], *, what: str, name: str, seconds: float = ASK_SECONDS) -> str:
        done = ask([self.program, *words], seconds=seconds)
        if done.status != 0:
            raise complaint(name, what, _complaint(done.err + done.out))
        return done.out


def _complaint(text: str) -> str:
    """Message and error of the last JSON line that has any; older versions say `err`, newer `error` too."""
    for line in reversed(text.splitlines()):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and ("err" in record or "error" in record):
            return f"{record.get('msg', '')}: {record.get('err') or record.get('error')}"
    return text
