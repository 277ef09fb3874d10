"""One job on a phone: sent, started, waited for and fetched. It runs apart from the connection.

The app has one folder, in which everything is called edgefit-...: KEY.job, KEY.samples.ndjson,
KEY.result.json, parcels, and `running`, which changes every two seconds while a job is at work. Nothing can
be deleted there from here: the app removes what earlier jobs left when the next one starts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from targets._shared.parcel import pack
from targets._shared.phone_tools import BUNDLE, GoneError, Tool, device
from targets._shared.runner import Job, Model
from targets._shared.settings import Settings
from toolchain.artifacts import content_hash
from toolchain.errors import DeviceError
from toolchain.latency.timings import cache_folder

APP_VERSION: Final = "1"
"""The version of `targets/iphone/Runner` whose records are known here."""
RUNNING: Final = "edgefit-running"
NOBODY: Final = "0"
"""A key without a job: starting the app with it ends what runs."""
BEAT_SECONDS: Final = 2.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Handset:
    """A phone with the runner app, through a tool. A phone that is gone is waited for `patience_seconds`."""

    tool: Tool
    udid: str
    settings: Settings = field(default_factory=Settings)
    patience_seconds: float = 120.0
    every_seconds: float = 5.0
    silence_seconds: float = 60.0
    sleep: Callable[[float], None] = field(default=time.sleep)

    @property
    def name(self) -> str:
        """As it is written after --device."""
        return device(self.udid)

    @property
    def bundle(self) -> str:
        """The runner app's identifier."""
        return self.settings.bundle or BUNDLE

    def run(self, job: Job, packages: Sequence[Path]) -> tuple[dict[str, Any], ...]:
        """The records that the app answers to `job`, whose models are `packages`.

        A run that an earlier call lost is found again by what it measures.

        Raises:
            GoneError: the phone stays away; the run goes on.
            DeviceError: the phone refuses, or the measurement is not complete.
        """
        with _alone(self.udid) as folder, tempfile.TemporaryDirectory() as scratch:
            parcels = [Path(scratch) / str(number) for number in range(len(packages))]
            digests = [pack(package, parcel) for package, parcel in zip(packages, parcels, strict=True)]
            models = tuple(
                Model(runtime=m.runtime, path=f"edgefit-{sha[:16]}.parcel", sha256=sha)
                for m, sha in zip(job.models, digests, strict=True)
            )
            text = replace(job, models=models).text()
            pending = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.pending"
            self.tool.require_ready(self.udid)
            installed, beat = self._look()
            key = self._found(pending, beat)
            try:
                if key is None:
                    self._install(folder, installed)
                    key = self._start(pending, text, parcels, models)
                result = self._wait(key, job.deadline)
                samples = self._patiently(lambda: self._pull(f"edgefit-{key}.samples.ndjson"))
            except GoneError:
                raise
            except BaseException as error:
                pending.unlink(missing_ok=True)
                if not isinstance(error, DeviceError):
                    self._stop()
                raise
            pending.unlink(missing_ok=True)
            return self._complete(result, samples)

    def _look(self) -> tuple[bool, bytes | None]:
        """Whether the runner is there, and what a job at work leaves; an error where none is to be had."""
        try:
            return True, self._pull(RUNNING)
        except GoneError:
            raise
        except DeviceError as error:
            if self.settings.app is None or "has no runner app" not in error.message:
                raise
            return False, None

    def _found(self, pending: Path, beat: bytes | None) -> str | None:
        """The key of an earlier call's run that goes on or is done; None where there is none.

        Raises:
            DeviceError: another measurement is running on the phone.
        """
        key = pending.read_text(encoding="utf-8") if pending.is_file() else None
        if key is not None and self._pull(f"edgefit-{key}.result.json") is not None:
            return key
        if beat is None:
            return None
        self.sleep(3 * BEAT_SECONDS)
        if self._pull(RUNNING) in (None, beat):
            return None
        if key is not None and beat.startswith(key.encode()):
            return key
        raise DeviceError(f"another measurement is running on {self.name}")

    def _start(self, pending: Path, text: str, parcels: Sequence[Path], models: Sequence[Model]) -> str:
        """Send everything and start the app; the new run's key."""
        key = secrets.token_hex(8)
        for parcel, model in zip(parcels, models, strict=True):
            self.tool.push(self.udid, self.bundle, parcel, model.path)
        job = parcels[0].with_name("job")
        job.write_text(text, encoding="utf-8")
        self.tool.push(self.udid, self.bundle, job, f"edgefit-{key}.job")
        pending.write_text(key, encoding="utf-8")
        self.tool.launch(self.udid, self.bundle, key)
        return key

    def _install(self, folder: Path, installed: bool) -> None:
        """The app that `devices.toml` names, unless this very one is there."""
        if self.settings.app is None:
            return
        app = Path(self.settings.app).expanduser()
        if not app.exists():
            raise DeviceError(
                f"there is no app at {app}", hint="`app` in devices.toml names the runner's .app"
            )
        digest, last = content_hash(app), folder / "installed"
        if not installed or not last.is_file() or last.read_text(encoding="utf-8") != digest:
            self.tool.install(self.udid, app)
            last.write_text(digest, encoding="utf-8")

    def _wait(self, key: str, seconds: float) -> bytes:
        """The result, once it is there. The app ends itself at its deadline."""
        stop = time.monotonic() + seconds + self.silence_seconds
        changed, last, pause = time.monotonic(), b"", 0.5
        while True:
            result = self._patiently(lambda: self._pull(f"edgefit-{key}.result.json"))
            if result is not None:
                return result
            beat = self._patiently(lambda: self._pull(RUNNING)) or b""
            now = time.monotonic()
            if beat != last:
                changed, last = now, beat
            if now - changed > self.silence_seconds or now > stop:
                raise DeviceError(
                    f"the runner on {self.name} ended without a result",
                    hint="was the app left or closed? out of memory is another cause",
                )
            self.sleep(pause)
            pause = min(2 * pause, self.every_seconds)

    def _complete(self, result: bytes, samples: bytes | None) -> tuple[dict[str, Any], ...]:
        """The records, complete, as many as the result says, and of an app whose records are known."""
        try:
            told = json.loads(result)
            if told["status"] != "complete" or told["exit_code"] != 0:
                raise DeviceError(f"measuring on {self.name} failed: {told['error']}")
            records = [json.loads(line) for line in (samples or b"").splitlines()]
            whole = records[-1]["type"] == "end" and len(records) == told["records"] + 2
            app = records[0]["runner"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DeviceError(f"the result of {self.name} cannot be read") from error
        if not whole:
            raise DeviceError(f"the samples of {self.name} are not complete")
        if app != APP_VERSION:
            raise DeviceError(
                f"the runner app on {self.name} has version {app}, {APP_VERSION} is needed",
                hint="build targets/iphone/Runner anew and install it",
            )
        return tuple(records)

    def _pull(self, name: str) -> bytes | None:
        return self.tool.pull(self.udid, self.bundle, name)

    def _stop(self) -> None:
        """End what runs; without the phone nothing can be done."""
        try:
            self.tool.launch(self.udid, self.bundle, NOBODY)
        except DeviceError:
            return

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What `ask` answers; a phone that is gone is asked again for a while."""
        stop = time.monotonic() + self.patience_seconds
        while True:
            try:
                return ask()
            except GoneError as error:
                if time.monotonic() > stop:
                    raise GoneError(
                        f"{self.name} is gone; the measurement goes on there",
                        hint="plug it in and repeat the command: it is found again",
                    ) from error
            self.sleep(2.0)


@contextmanager
def _alone(udid: str) -> Iterator[Path]:
    """This machine's folder for the phone, held: a second measurement from here is refused."""
    folder = cache_folder() / "iphone" / udid
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DeviceError(f"another measurement is running on {device(udid)}") from error
        yield folder
