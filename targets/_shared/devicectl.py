"""Apple's `xcrun devicectl`, Xcode 15 and later. The JSON file is its promise to programs, not its text."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
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
class DeviceCtl:
    """As `Tool`, on a Mac."""

    program: str
    name: str = "devicectl"

    def phones(self) -> tuple[Seen, ...]:
        """As `Tool.phones`: physical phones and tablets, those that were here once among them."""
        result = self._run(["list", "devices"], what="list", name="the phones")
        found = []
        for entry in result.get("devices", ()):
            hardware = entry.get("hardwareProperties", {})
            if hardware.get("platform") in ("iOS", "iPadOS") and hardware.get("udid"):
                found.append(_seen(entry, hardware))
        return tuple(found)

    def require_ready(self, udid: str) -> None:
        """As `Tool.require_ready`. The list remembers phones that left; of its lock only a phone can tell."""
        seen = among(self.phones(), udid)
        if seen.missing:
            raise DeviceError(f"{device(udid)} needs {seen.missing}", hint=seen.hint)
        words = ["device", "info", "lockState", "--device", udid]
        if self._run(words, what="ask", name=device(udid)).get("passcodeRequired"):
            raise complaint(device(udid), "use", "the device is locked")

    def install(self, udid: str, app: Path) -> None:
        """As `Tool.install`."""
        words = ["device", "install", "app", "--device", udid, str(app)]
        self._run(words, what="install the runner app on", name=device(udid), seconds=COPY_SECONDS)

    def push(self, udid: str, bundle: str, here: Path, name: str) -> None:
        """As `Tool.push`."""
        words = ["device", "copy", "to", "--device", udid, *_container(bundle)]
        words += ["--source", str(here), "--destination", f"{DOCUMENTS}/{name}"]
        self._run(words, what="send a file to", name=device(udid), seconds=COPY_SECONDS)

    def pull(self, udid: str, bundle: str, name: str) -> bytes | None:
        """As `Tool.pull`."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "file"
            words = ["device", "copy", "from", "--device", udid, *_container(bundle)]
            words += ["--source", f"{DOCUMENTS}/{name}", "--destination", str(target)]
            try:
                self._run(words, what="fetch a file from", name=device(udid), seconds=COPY_SECONDS)
            except DeviceError as error:
                if "CoreDeviceError error 7000" in error.message:
                    return None
                raise
            return target.read_bytes() if target.is_file() else None

    def launch(self, udid: str, bundle: str, argument: str) -> None:
        """As `Tool.launch`: without --console, so that the app does not end with this connection."""
        words = ["device", "process", "launch", "--device", udid, "--terminate-existing"]
        result = self._run(words, bundle, argument, what="start the runner on", name=device(udid))
        if not result.get("process", {}).get("processIdentifier"):
            raise DeviceError(f"cannot start the runner on {device(udid)}: devicectl names no process")

    def _run(
        self, words: list[str], *rest: str, what: str, name: str, seconds: float = ASK_SECONDS
    ) -> Mapping[str, Any]:
        """The `result` of a command that succeeded; `rest` comes after all flags."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "answer.json"
            command = [self.program, "devicectl", *words, "--json-output", str(file), *rest]
            done = ask(command, seconds=seconds)
            try:
                answer = json.loads(file.read_text(encoding="utf-8"))
                outcome = answer["info"]["outcome"]
            except (OSError, ValueError, KeyError, TypeError):
                answer, outcome = {}, ""
        if done.status != 0 or outcome != "success":
            said = " ".join(_errors(answer.get("error"))) or done.err or done.out
            raise complaint(name, what, said)
        result = answer.get("result")
        return result if isinstance(result, dict) else {}


def _container(bundle: str) -> list[str]:
    return ["--domain-type", "appDataContainer", "--domain-identifier", bundle]


def _seen(entry: Mapping[str, Any], hardware: Mapping[str, Any]) -> Seen:
    """What the list says of one phone."""
    properties, link = entry.get("deviceProperties", {}), entry.get("connectionProperties", {})
    missing, hint = "", ""
    if link.get("pairingState") != "paired":
        missing, hint = "its trust in this computer", "plug it in, unlock it, and tap Trust"
    elif properties.get("developerModeStatus") == "disabled":
        missing, hint = "developer mode", "on the phone: Settings > Privacy & Security > Developer Mode"
    elif link.get("tunnelState") == "unavailable":
        missing, hint = "a connection", "plug it in and unlock it"
    return Seen(
        udid=hardware["udid"],
        kind=hardware.get("productType") or "iPhone",
        version=properties.get("osVersionNumber") or "unknown",
        missing=missing,
        hint=hint,
    )


def _errors(error: Any) -> Iterator[str]:
    """An error and those under it, as `DESCRIPTION (DOMAIN error CODE)`."""
    while isinstance(error, dict):
        info = error.get("userInfo") or {}
        for key in ("NSLocalizedDescription", "NSLocalizedFailureReason"):
            if isinstance(text := (info.get(key) or {}).get("string"), str):
                yield text
        yield f"({error.get('domain')} error {error.get('code')})"
        error = (info.get("NSUnderlyingError") or {}).get("error")
