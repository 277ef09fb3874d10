"""What a program that reaches iPhones must offer, and what its complaints mean.

There are three: Apple's `devicectl` on a Mac, go-ios and pymobiledevice3 on Linux. Each is a process of
its own. What they print differs, what can be wrong with a phone does not: a table tells it from their words.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from toolchain.errors import DeviceError

BUNDLE: Final = "io.edgefit.runner"
DOCUMENTS: Final = "Documents"
ASK_SECONDS, COPY_SECONDS = 60.0, 900.0
"""How long a tool may take to answer, and to send or fetch a file."""


class GoneError(DeviceError):
    """The phone does not answer; what runs on it goes on."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A phone that a tool knows, of Apple's `kind` (iPhone14,2).

    `missing` says what keeps it from being used now, `hint` what to do.
    """

    udid: str
    kind: str = "iPhone"
    version: str = "unknown"
    missing: str = ""
    hint: str = ""

    @property
    def summary(self) -> str:
        """What and which system it is."""
        return f"{self.kind}, iOS {self.version}"


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a tool's process ended with."""

    status: int
    out: str
    err: str


class Tool(Protocol):
    """A program that reaches iPhones. All may raise GoneError, and DeviceError with the phone's complaint."""

    @property
    def name(self) -> str:
        """What it is called."""

    def phones(self) -> tuple[Seen, ...]:
        """Every phone that it knows."""

    def require_ready(self, udid: str) -> None:
        """Raise DeviceError where the phone is locked or does not let programs be started."""

    def install(self, udid: str, app: Path) -> None:
        """Install a signed app."""

    def push(self, udid: str, bundle: str, here: Path, name: str) -> None:
        """Put a file into the app's documents."""

    def pull(self, udid: str, bundle: str, name: str) -> bytes | None:
        """A file out of the app's documents; None where there is none."""

    def launch(self, udid: str, bundle: str, argument: str) -> None:
        """Start the app anew with one argument."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Words of a tool, what they mean for a phone, and what to do."""

    words: str
    means: str
    hint: str
    gone: bool = False


CAUSES: Final = (
    Cause(
        words=r"FBSOpenApplicationErrorDomain error 7\b|could not be, unlocked|[Pp]assword ?[Pp]rotected"
        r"|device is locked|DeviceLocked|\berror 12040\b",
        means="is locked",
        hint="unlock it, and let it stay so: Settings > Display & Brightness > Auto-Lock > Never",
    ),
    Cause(
        words=r"explicitly trusted by the user|FBSOpenApplicationErrorDomain error 3\b",
        means="does not trust the developer of the runner app",
        hint="on the phone: Settings > General > VPN & Device Management > Trust",
    ),
    Cause(
        words=r"[Nn]ot paired|is the device paired|InvalidHostID|user dialog|refused to trust"
        r"|PairingDialogResponsePending|UserDeniedPairing",
        means="does not trust this computer",
        hint="plug it in, unlock it, and tap Trust",
    ),
    Cause(
        words=r"[Dd]eveloper [Mm]ode",
        means="has developer mode off",
        hint="on the phone: Settings > Privacy & Security > Developer Mode",
    ),
    Cause(
        words=r"ContainerLookupErrorDomain|error -10814\b|[Nn]ot installed|InstallationLookupFailed"
        r"|ApplicationLookupFailed|No app with bundle id",
        means="has no runner app",
        hint="build targets/iphone/Runner (its README says how), and let `app` in devices.toml name it",
    ),
    Cause(
        words=r"integrity could not be verified|ApplicationVerificationFailed|provisioning profile",
        means="does not accept the runner app",
        hint="sign it for this phone: targets/iphone/Runner/README.md",
    ),
    Cause(
        words=r"InvalidService|[Dd]eveloper ?(Disk)? ?Image|[Tt]unnel|RSD is required"
        r"|Failed to start service",
        means="lets no program be started: its developer services are not reached",
        hint="go-ios: `ios tunnel start --userspace` beside this, and `ios image auto` once; "
        "else `pymobiledevice3 mounter auto-mount`",
    ),
    Cause(
        words=r"usbmuxd",
        means="cannot be reached: there is no usbmuxd",
        hint="apt-get install usbmuxd",
    ),
    Cause(
        words=r"CoreDeviceError error (1011|4000)\b|unable to locate a device|not found. Is it attached"
        r"|[Dd]evice (is )?not (connected|found)|connection to this device could not|no longer reachable"
        r"|terminated abruptly|NSPOSIXErrorDomain error (54|57|60)\b",
        means="is not there",
        hint="plug it in; edgefit devices shows what is reached",
        gone=True,
    ),
)


def complaint(name: str, what: str, text: str) -> DeviceError:
    """The error that a tool's words amount to; `what` was tried on the phone `name`."""
    flat = " ".join(text.split())
    for cause in CAUSES:
        if re.search(cause.words, flat):
            kind = GoneError if cause.gone else DeviceError
            return kind(f"{name} {cause.means}", hint=cause.hint)
    return DeviceError(f"cannot {what} {name}: {flat[:300] or 'no reason given'}")


def ask(command: Sequence[str], *, seconds: float) -> Done:
    """Run a tool.

    Raises:
        GoneError: it did not answer in time.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise GoneError(f"{Path(command[0]).name} did not answer within {seconds:.0f} s") from error
    except OSError as error:
        raise DeviceError(f"cannot run {command[0]}: {error.strerror}") from error
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return Done(status=done.returncode, out=out, err=err)


def among(phones: Sequence[Seen], udid: str) -> Seen:
    """The phone of this identifier.

    Raises:
        GoneError: it is not among `phones`.
    """
    for phone in phones:
        if phone.udid.lower() == udid.lower():
            return phone
    raise GoneError(f"{device(udid)} is not there", hint="edgefit devices shows what is reached")


def device(udid: str) -> str:
    """As it is written after --device."""
    return f"iphone:{udid}"
