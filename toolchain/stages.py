"""Finished stages on disk: each is a folder that appears whole or not at all, keyed by what went into it.

A second run with the same inputs finds the folder and skips the work; an interrupted run leaves only
complete folders and checkpoints behind. Another version of the tool makes its stages anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolchain import __version__
from toolchain.errors import InputError

Make = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """A work folder. `root` is created with the first finished stage."""

    root: Path

    def folder(self, name: str, inputs: object) -> Path:
        """Where the stage `name` with these (JSON-able) inputs lives, finished or not."""
        text = json.dumps([__version__, inputs], sort_keys=True, default=str)
        return self.root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def all(self, name: str) -> list[Path]:
        """The folders of every finished stage `name`."""
        return [path for path in self.root.glob(f"{name}-*") if path.suffix == ""]

    def once(self, name: str, inputs: object, make: Make) -> tuple[Path, bool]:
        """The stage's folder, made by `make(folder)` unless it exists; True when it was reused.

        Raises:
            InputError: the work folder cannot be written.
        """
        final = self.folder(name, inputs)
        if final.is_dir():
            return final, True
        partial = final.with_name(f"{final.name}.partial-{os.getpid()}")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"cannot write the work folder {self.root}: {error.strerror}",
                hint="choose another --out on a writable disk with space left",
            ) from error
        try:
            make(partial)
            partial.replace(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return final, False
