"""Image folders: `train/` and `val/`, one folder a class, JPEG or PNG."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import InputError
from toolchain.train.batches import Part, Samples
from toolchain.values import Preprocessing, TensorSpec

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
_VALIDATION_NAMES: Final = ("val", "validation", "valid", "test")
_IN_MEMORY_BYTES: Final = 2 * 10**9
_RUN: Final = 64
"""Images a thread decodes in one go."""
_LAYOUT: Final = "expected train/CLASS/*.jpg and val/CLASS/*.jpg (JPEG or PNG)"


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Image files of one part with the number of their class."""

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    identity: str


def open_images(
    folder: Path,
    *,
    preprocessing: Preprocessing,
    spec: TensorSpec,
    in_memory_bytes: int = _IN_MEMORY_BYTES,
) -> Samples:
    """The image folder, decoded into memory once where `in_memory_bytes` allow.

    Raises:
        InputError: not laid out as expected, no images, or channels that the network does not take.
    """
    train_folder, validation_folder = _parts(folder)
    classes = _classes(train_folder, validation_folder)
    channels, size = _geometry(spec, preprocessing, folder)
    stated = stated_preprocessing(preprocessing, channels, size, folder)
    parts = [_list(part, classes) for part in (train_folder, validation_folder)]
    needed = sum(len(p.paths) for p in parts) * channels * size[0] * size[1]
    decode = _Decoder(size=size, channels=channels)
    opened = [_open(files, decode, keep=needed <= in_memory_bytes) for files in parts]
    bad = tuple(os.path.relpath(path, folder) for _, skipped in opened for path in skipped)
    for (part, skipped), where in zip(opened, (train_folder, validation_folder), strict=True):
        if len(part.labels) == 0:
            count = f"all {len(skipped)} images are unreadable" if skipped else "no images"
            raise InputError(f"{where}: {count}", hint=_LAYOUT)
    return Samples(
        name=folder.name or str(folder),
        classes=classes,
        preprocessing=stated,
        skipped=bad,
        train_part=opened[0][0],
        validation_part=opened[1][0],
        images=True,
        flips=True,
        identity="\n".join(files.identity for files in parts),
    )


def stated_preprocessing(
    given: Preprocessing, channels: int, size: tuple[int, int], where: Path
) -> Preprocessing:
    """`given` made explicit for `channels`; ImageNet's default becomes plain 0-1 for other than RGB.

    Raises:
        InputError: mean or std of another number of channels, or a std that is not positive.
    """
    if len(given.mean) != channels and given.source.startswith("default"):
        plain = f"default for {channels} channels: 0-1"
        given = Preprocessing(mean=(0.0,) * channels, std=(1.0,) * channels, source=plain)
    if len(given.mean) != channels or len(given.std) != channels:
        raise InputError(
            f"{where}: the network takes {channels} channels, --mean has {len(given.mean)} values and "
            f"--std {len(given.std)}",
            hint=f"give {channels} values each",
        )
    if not all(np.isfinite(given.mean)) or not all(s > 0 and np.isfinite(s) for s in given.std):
        raise InputError(f"--std must be positive and --mean finite: {given.mean}, {given.std}")
    return replace(given, resize=size)


def _parts(folder: Path) -> tuple[Path, Path]:
    train = folder / "train"
    found = [folder / name for name in _VALIDATION_NAMES if (folder / name).is_dir()]
    if not train.is_dir() or not found:
        missing = "train/" if not train.is_dir() else "val/"
        state = "is empty" if not any(folder.iterdir()) else f"has no {missing}"
        raise InputError(f"data folder {folder} {state}", hint=_LAYOUT)
    return train, found[0]


def _classes(train: Path, validation: Path) -> tuple[str, ...]:
    names = [
        sorted(p.name for p in part.iterdir() if p.is_dir() and p.name[0] != ".")
        for part in (train, validation)
    ]
    for part, found in zip((train, validation), names, strict=True):
        if not found:
            raise InputError(f"{part}: no class folders", hint=_LAYOUT)
    odd = sorted(set(names[0]) ^ set(names[1]))
    if odd:
        where = train if odd[0] in names[0] else validation
        raise InputError(
            f"class '{odd[0]}' is in {where.name}/ only ({len(odd)} such classes)",
            hint=f"{train.name}/ and {validation.name}/ must have the same class folders",
        )
    return tuple(names[0])


def _geometry(spec: TensorSpec, preprocessing: Preprocessing, folder: Path) -> tuple[int, tuple[int, int]]:
    """Channels and (height, width) that the network wants."""
    if len(spec.shape) != 4 or spec.shape[1] not in (1, 3) or not spec.dtype.startswith(("float", "bfloat")):
        raise InputError(
            f"{folder}: images do not fit input '{spec.name}' {_shape(spec)}",
            hint="images need an input [batch, 1 or 3, height, width]; else use package.module:function",
        )
    height, width = spec.shape[2], spec.shape[3]
    size = preprocessing.resize
    if height is None or width is None:
        if size is None:
            raise InputError(f"{folder}: input '{spec.name}' has no fixed size", hint="give --resize H W")
        return spec.shape[1], size
    if size is not None and size != (height, width):
        raise InputError(
            f"--resize {size[0]} {size[1]} contradicts the network's input {_shape(spec)}",
            hint=f"leave --resize out, or give {height} {width}",
        )
    return spec.shape[1], (height, width)


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("batch" if d is None else str(d) for d in spec.shape) + "]"


def _list(part: Path, classes: tuple[str, ...]) -> _Files:
    paths: list[str] = []
    labels: list[int] = []
    digest = hashlib.sha256()
    for number, name in enumerate(classes):
        before = len(paths)
        with os.scandir(part / name) as entries:
            found = sorted(entries, key=lambda e: e.name)
        for entry in found:
            if Path(entry.name).suffix.lower() in _SUFFIXES and entry.is_file():
                state = entry.stat()
                digest.update(f"{name}/{entry.name} {state.st_size} {state.st_mtime_ns}\n".encode())
                paths.append(entry.path)
                labels.append(number)
        if len(paths) == before:
            raise InputError(f"{part / name}: a class without images", hint=_LAYOUT)
    return _Files(paths=tuple(paths), labels=np.asarray(labels, dtype=np.int64), identity=digest.hexdigest())


@dataclass(frozen=True, kw_only=True)
class _Decoder:
    """Reads an image file as uint8 [h, w, c] of fixed size; None when it is corrupt."""

    size: tuple[int, int]
    channels: int

    def __call__(self, path: str) -> NDArray[np.uint8] | None:
        from PIL import Image

        try:
            with Image.open(path) as image:
                upright = image.convert("RGB" if self.channels == 3 else "L")
        # A corrupt file shows as any of these, depending on the decoder that stumbles over it.
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
            return None
        if upright.size != (self.size[1], self.size[0]):
            upright = upright.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        return np.asarray(upright, dtype=np.uint8).reshape(*self.size, self.channels)


def _open(files: _Files, decode: _Decoder, *, keep: bool) -> tuple[Part, list[str]]:
    """The readable images of a part, and the paths of the others."""
    if keep:
        pixels = np.empty((len(files.paths), *decode.size, decode.channels), dtype=np.uint8)

        def read(position: int) -> bool:
            image = decode(files.paths[position])
            if image is not None:
                pixels[position] = image
            return image is not None

        good = np.asarray(_in_threads(read, range(len(files.paths))), dtype=bool)
        if not good.all():
            pixels = pixels[good]
        fetch: Callable[[NDArray[np.int64]], NDArray[Any]] = pixels.__getitem__
    else:
        good = np.asarray(_in_threads(_is_readable, files.paths), dtype=bool)
        paths = [path for path, fine in zip(files.paths, good, strict=True) if fine]
        fetch = _fetch_from_disk(paths, decode)
    skipped = [path for path, fine in zip(files.paths, good, strict=True) if not fine]
    return Part(fetch=fetch, labels=files.labels[good]), skipped


def _is_readable(path: str) -> bool:
    """Decodes the image at an eighth of its size (JPEG), enough to see that the file is whole."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (64, 64))
            image.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return False
    return True


def _fetch_from_disk(paths: Sequence[str], decode: _Decoder) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
    def fetch(indices: NDArray[np.int64]) -> NDArray[Any]:
        found = _in_threads(lambda i: decode(paths[i]), indices.tolist())
        for position, image in zip(indices.tolist(), found, strict=True):
            if image is None:
                raise InputError(f"image became unreadable: {paths[position]}", hint="start the run again")
        return np.stack(found)

    return fetch


def _in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Decoding releases the interpreter lock, so threads share the work; a task is a run of items."""

    def several(start: int) -> list[Any]:
        return [function(item) for item in items[start : start + _RUN]]

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return [result for results in pool.map(several, range(0, len(items), _RUN)) for result in results]
