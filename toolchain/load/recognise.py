"""What kind of file is this? Decided by content; the suffix is never trusted."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final, Literal

from toolchain.errors import InputError

Kind = Literal["exported", "torchscript", "pickle"]

_ACCEPTED: Final = (
    "accepted: torch.export archives, TorchScript, pickled nn.Module, "
    "state dict with --arch package.module:factory"
)
_STARTS: Final = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file (Keras?)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


def recognise(path: Path) -> Kind:
    """The kind of the model file.

    Raises:
        InputError: missing, a folder, empty, truncated, or of another format (which one is said).
    """
    if (path / "Manifest.json").is_file():
        hint = "name the PyTorch model that it was made from; Core ML runs on macOS and iOS only"
        raise InputError(f"{path} is a Core ML package", hint=hint)
    if path.is_dir():
        raise InputError(f"{path} is a directory", hint="name the model file")
    if not path.exists():
        raise InputError(f"model file not found: {path}", hint="check the path")
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error
    if not head:
        raise InputError(f"{path} is empty", hint="write or download it again")
    if head.startswith(b"PK"):
        return _kind_of_archive(path)
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in range(2, 6):
        return "pickle"
    raise InputError(f"{path} is no PyTorch model: it looks like {_looks_like(head)}", hint=_ACCEPTED)


def _kind_of_archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path} is a truncated or damaged archive", hint="write or download it again"
        ) from error
    inner = {name.partition("/")[2] for name in names}
    if "serialized_exported_program.json" in names or "archive_format" in inner:
        return "exported"
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "data.pkl" in inner:
        return "pickle"
    what = "an .npz of arrays" if names and all(n.endswith(".npy") for n in names) else "a zip archive"
    raise InputError(f"{path} is no PyTorch model: it looks like {what}", hint=_ACCEPTED)


def _looks_like(head: bytes) -> str:
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    text = head.lstrip().lower()
    if head[4:8] == b"TFL3":
        return "a TFLite model"
    if text.startswith((b"<!doctype", b"<html")):
        return "an HTML page (a failed download?)"
    if head[8:9] == b"{":
        return "a safetensors file (load it and torch.save its state dict)"
    if head[:1] == b"\x08" and any(mark in head for mark in (b"pytorch", b"onnx", b"\x12", b"ir_version")):
        return "an ONNX model"
    if head[257:262] == b"ustar":
        return "a tar archive"
    try:
        head.decode()
    except UnicodeDecodeError:
        return "an unknown binary format"
    return "a text file"
