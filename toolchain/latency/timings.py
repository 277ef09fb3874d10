"""The layer timings of earlier runs, in a folder of the user's that all networks and runs share.

A sub-folder holds what was timed under equal conditions, one file a layer shape. Timings of other conditions
are never read: another device, CPU, system, runtime or version of it, threads, precision or clock setting.
All points of one shape are at one clock (that of the first ones): who adds some brings them to it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from toolchain.errors import InputError
from toolchain.values import Conditions, Precision

VERSION: Final = 4
CONDITIONS: Final = (
    "device", "os", "cpu", "runtime", "runtime_version", "threads", "governor", "max_mhz", "boost",
)  # fmt: skip
"""What timings must have in common to stand in one table; what cannot be read is null on both sides."""

Points = dict[tuple[int, int], float]
"""Kernel milliseconds by (inputs, outputs)."""


def cache_folder() -> Path:
    """This user's folder: `$EDGEFIT_CACHE`, or `$XDG_CACHE_HOME/edgefit`, or `~/.cache/edgefit`."""
    own, shared = os.environ.get("EDGEFIT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser()
    return (Path(shared) if shared else Path.home() / ".cache") / "edgefit"


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What was timed under one set of conditions; `folder` is created with the first timing."""

    folder: Path
    identity: Mapping[str, Any]

    def known(self, shape: str) -> Points:
        """The points of a layer shape; none where the file is missing, unreadable or of other conditions."""
        try:
            record = json.loads(self._path(shape).read_text(encoding="utf-8"))
            if record["identity"] != self.identity:
                return {}
            points = {(int(i), int(o)): float(ms) for i, o, ms in record["points"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {widths: ms for widths, ms in points.items() if math.isfinite(ms) and ms >= 0}

    def keep(self, shape: str, points: Mapping[tuple[int, int], float]) -> None:
        """Replace the points of a shape, whole or not at all.

        Raises:
            InputError: the folder cannot be written.
        """
        rows = [[inputs, outputs, ms] for (inputs, outputs), ms in sorted(points.items())]
        record = {"identity": self.identity, "shape": shape, "unit": "ms", "points": rows}
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.folder, suffix=".tmp", delete=False, encoding="utf-8"
            ) as file:
                json.dump(record, file)
            Path(file.name).replace(self._path(shape))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other run times layers under these conditions meanwhile: what it finds is waited for and used.

        The system frees the lock of a process that ends, however it ends. Where there are no such locks
        (Windows) two runs may time the same layers; files stay whole all the same.

        Raises:
            InputError: the folder cannot be written.
        """
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("w")
        with file:
            try:
                import fcntl
            except ImportError:
                pass
            else:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, shape: str) -> Path:
        return self.folder / f"{shape}.json"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write layer timings to {self.folder}: {error.strerror}",
                hint="let EDGEFIT_CACHE name a folder on a writable disk with space left",
            ) from error


def timings(cache: Path, conditions: Conditions, precision: Precision) -> Timings:
    """What `cache` holds, or will, for these conditions."""
    found = asdict(conditions)
    identity = {name: found[name] for name in CONDITIONS} | {"precision": precision, "version": VERSION}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return Timings(folder=cache / "layer-timings" / digest, identity=identity)
