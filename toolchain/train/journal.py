"""A CSV file with a line for every epoch of every training of a run, added when the epoch is over."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from toolchain.errors import InputError

COLUMNS: Final = ("part", "epoch", "of", "loss", "metric", "lr", "seconds")


def add_line(path: Path | None, part: str, epoch: int, of: int, **values: float) -> None:
    """Add an epoch to the file, with a head where it is new; nothing without a path.

    Raises:
        InputError: the file cannot be written.
    """
    if path is None:
        return
    row = {"part": part, "epoch": epoch, "of": of, **{name: f"{value:.6g}" for name, value in values.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            if stream.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
    except OSError as error:
        raise InputError(
            f"cannot write --log {path}: {error.strerror}", hint="choose another file"
        ) from error
