"""The result folder: complete or absent. Finished stages live beside it in `OUT.work` and may be deleted."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from toolchain.errors import InputError

_FREE = "choose another --out on a writable disk with space left"


def work_folder(out: Path) -> Path:
    """Where the finished stages and checkpoints of a run into `out` are kept."""
    return out.with_name(f"{out.name}.work")


def refuse_foreign_folder(out: Path) -> None:
    """Make sure that `out` can be written and holds nothing that is not ours.

    Raises:
        InputError: a file is in the way, the folder holds something else, or the disk refuses.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file", hint="name a folder")
    if out.is_dir() and any(out.iterdir()) and not _ours(out):
        raise InputError(
            f"--out {out} exists and is not a result of edgefit", hint="choose another folder, or empty it"
        )
    try:
        above = next(p for p in out.absolute().parents if p.exists())
        Path(tempfile.mkdtemp(prefix=".edgefit-", dir=above)).rmdir()
    except OSError as error:
        raise InputError(f"cannot write --out {out}: {error.strerror}", hint=_FREE) from error


def _ours(out: Path) -> bool:
    """Whether the folder holds an earlier report, front or gate of ours."""
    for name in ("report.json", "front.json", "gate.json"):
        try:
            schema = json.loads((out / name).read_text(encoding="utf-8"))["schema"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if str(schema).startswith("edgefit."):
            return True
    return False


def clear_others(out: Path, names: Collection[str]) -> None:
    """Remove from a result folder of ours whatever is not named: what earlier runs left there.

    Raises:
        InputError: the disk refuses.
    """
    try:
        for entry in out.iterdir():
            if entry.name not in names:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    except OSError as error:
        raise InputError(f"cannot write --out {out}: {error.strerror}", hint=_FREE) from error


def replace_folder(out: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder and put it in the place of `out` in one step.

    Raises:
        InputError: the disk refuses; `out` is then as it was.
    """
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        fill(partial)
        if out.exists():
            out.replace(old)
        partial.replace(out)
    except OSError as error:
        if old.exists() and not out.exists():
            old.replace(out)
        raise InputError(f"cannot write --out {out}: {error.strerror or error}", hint=_FREE) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
