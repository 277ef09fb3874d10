"""A model package as one file, so that every tool that copies files to a phone can carry it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

HEAD: Final = "edgefit.parcel/1"
_BLOCK: Final = 1 << 20


def pack(package: Path, path: Path) -> str:
    """Write all files of a package (a folder) into `path`; the SHA-256 of what was written.

    A line `edgefit.parcel/1`, a line `SIZE PATH` for each file, an empty line, the files one after the other.
    The same package gives the same bytes.
    """
    files = sorted(file for file in package.rglob("*") if file.is_file())
    lines = [HEAD, *(f"{file.stat().st_size} {file.relative_to(package).as_posix()}" for file in files)]
    digest = hashlib.sha256()
    with path.open("wb") as out:

        def put(block: bytes) -> None:
            out.write(block)
            digest.update(block)

        put(("\n".join(lines) + "\n\n").encode())
        for file in files:
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    put(block)
    return digest.hexdigest()
