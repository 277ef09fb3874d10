"""Files that are complete or absent, and the hash that identifies them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from toolchain.errors import InputError
from toolchain.values import Artifact, Precision

FORMAT_OF: Final = {".onnx": "onnx", ".tflite": "tflite", ".mlpackage": "coreml"}
"""The format of a model file that a runtime opens itself, by its ending."""
_BLOCK: Final = 1 << 20


def deliver(
    path: Path, fill: Callable[[Path], None], *, format_name: str, runtime: str, precision: Precision
) -> Artifact:
    """`place` a model file (or package folder) and describe it.

    Raises:
        InputError: as `place`.
    """
    place(path, fill)
    return describe(path, format_name=format_name, runtime=runtime, precision=precision)


def place(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a temporary file (or folder) beside `path`, then move it there in one step.

    Raises:
        InputError: the disk is full, read-only or missing. Nothing is left behind, and what stood at `path`
            before is untouched.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "its folder does not exist")
        _remove(partial)
        fill(partial)
        if not partial.exists():
            raise FileNotFoundError(errno.ENOENT, "the writer left no file")
        if path.is_dir():
            _remove(path)
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}", hint="choose a writable folder with space left"
        ) from error
    finally:
        _remove(partial)


def describe(path: Path, *, format_name: str, runtime: str, precision: Precision) -> Artifact:
    """The artifact at `path`: its size (of all files, for a folder) and the hash of its content."""
    return Artifact(
        format=format_name,
        runtime=runtime,
        precision=precision,
        path=path,
        size_bytes=sum(file.stat().st_size for file in _files(path)),
        sha256=content_hash(path),
    )


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; for a folder, of its sorted relative names, sizes and bytes."""
    digest = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
