"""`.npz` files with `x` [n, ...] and `y` [n]; optionally `x_val`, `y_val`.

In maps of classes, `y` [n, ...], 255 (as in PASCAL VOC) and -100 (as in torch) are not judged.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import InputError
from toolchain.train.batches import Part, Samples
from toolchain.train.confusion import IGNORED
from toolchain.train.images import stated_preprocessing
from toolchain.values import Preprocessing, TensorSpec

_HELD_OUT: Final = 0.1
"""Share of every class that validates when the file has no validation part."""
_VOID: Final = 255
_HINT: Final = "numpy.savez(FILE, x=..., y=...): x [n, channels, height, width], y [n]"


def open_arrays(path: Path, *, preprocessing: Preprocessing, spec: TensorSpec, seed: int) -> Samples:
    """Samples of the file; uint8 images are scaled and normalised, floats are taken as they are.

    Raises:
        InputError: unreadable, missing arrays, lengths or shapes that do not fit, NaN, labels out of range.
    """
    found = _read(path)
    for name in ("x", "y"):
        if name not in found:
            raise InputError(f"{path}: no array '{name}' (found: {', '.join(found) or 'none'})", hint=_HINT)
    pairs = [(found["x"], found["y"])]
    split = "the file's own validation part"
    if "x_val" in found and "y_val" in found:
        pairs.append((found["x_val"], found["y_val"]))
    elif "x_val" in found or "y_val" in found:
        raise InputError(f"{path}: x_val and y_val come together or not at all", hint=_HINT)
    for (x, y), suffix in zip(pairs, ("", "_val"), strict=False):
        _check(path, x, y, spec, suffix)
    if len(pairs) == 1:
        x, y = pairs[0]
        held_out = _stratified(y, seed)
        pairs = [(x[~held_out], y[~held_out]), (x[held_out], y[held_out])]
        split = f"stratified split, seed {seed}: {_HELD_OUT:.0%} held out"
        if len(pairs[0][1]) == 0 or len(pairs[1][1]) == 0:
            raise InputError(
                f"{path}: {len(y)} samples are too few to hold some out", hint="add x_val, y_val"
            )
    return _samples(path, pairs, found.get("classes"), preprocessing, spec, split)


def _samples(
    path: Path,
    pairs: list[tuple[NDArray[Any], NDArray[Any]]],
    names: NDArray[Any] | None,
    preprocessing: Preprocessing,
    spec: TensorSpec,
    split: str,
) -> Samples:
    images = pairs[0][0].ndim == 4 and pairs[0][0].dtype == np.uint8
    digest = hashlib.sha256(split.encode())
    parts = []
    for x, y in pairs:
        values = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if images else _as_input(x, spec)
        labels = _numbered(y) if y.dtype.kind in "iub" else y.astype(np.float32)
        for array in (values, labels):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        parts.append(Part(fetch=values.__getitem__, labels=labels))
    stated = None
    if images:
        shape = pairs[0][0].shape
        stated = stated_preprocessing(preprocessing, shape[1], (shape[2], shape[3]), path)
    elif not preprocessing.source.startswith("default"):
        raise InputError(
            f"{path}: x holds floats, which are fed as they are",
            hint="leave --mean and --std out, or store uint8",
        )
    return Samples(
        name=f"{path.name} ({split})",
        classes=_class_names(path, pairs, names),
        preprocessing=stated,
        skipped=(),
        train_part=parts[0],
        validation_part=parts[1],
        images=images,
        # Mirrored digits or spectrograms are other things; only colour pictures are taken to be symmetric.
        flips=images and pairs[0][0].shape[1] == 3,
        identity=digest.hexdigest(),
    )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # numpy takes whatever it does not know for a pickle, and advises to load it as one.
        reason = "not a numpy file" if "pickle" in str(error) else str(error)
        raise InputError(f"{path} is no readable .npz file ({reason})", hint=_HINT) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{path} holds a single array", hint=_HINT)
    found = {}
    with archive:
        for name in archive.files:
            try:
                found[name] = archive[name]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                reason = "an object array" if "Object arrays" in str(error) else f"unreadable ({error})"
                raise InputError(f"{path}: array '{name}' is {reason}", hint="store plain numbers") from error
    return found


def _check(path: Path, x: NDArray[Any], y: NDArray[Any], spec: TensorSpec, suffix: str) -> None:
    x_name, y_name = f"x{suffix}", f"y{suffix}"
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        lengths = f"{x.shape} and {y.shape}"
        raise InputError(f"{path}: {x_name} and {y_name} differ in length: {lengths}", hint=_HINT)
    if len(x) == 0:
        raise InputError(f"{path}: {x_name} is empty", hint=_HINT)
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise InputError(f"{path}: {x_name} is {x.dtype}, {y_name} is {y.dtype}", hint="store plain numbers")
    wanted = spec.shape[1:]
    if len(wanted) != x.ndim - 1 or any(w not in (None, h) for w, h in zip(wanted, x.shape[1:], strict=True)):
        raise InputError(
            f"{path}: samples of {x_name} are {list(x.shape[1:])}, input '{spec.name}' takes {list(wanted)}",
            hint="images are stored as [n, channels, height, width]",
        )
    for name, array in ((x_name, x), (y_name, y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = int(np.argwhere(~np.isfinite(array))[0][0])
            raise InputError(
                f"{path}: {name} holds NaN or infinity (first in sample {where})", hint="clean it"
            )
    if y.dtype.kind == "i":
        wrong = y[(y < 0) & (y != IGNORED)] if y.ndim > 1 else y[y < 0]
        if wrong.size:
            raise InputError(f"{path}: {y_name} holds the label {wrong.min()}", hint="labels count from 0")


def _numbered(y: NDArray[Any]) -> NDArray[np.int64]:
    """Class numbers as int64; in maps of them 255 becomes `IGNORED` where no number is higher."""
    numbers = y.astype(np.int64)
    if y.ndim > 1 and numbers.max() == _VOID:
        numbers[numbers == _VOID] = IGNORED
    return numbers


def _as_input(x: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """`x` in the dtype of the network's input."""
    return x.astype(np.dtype(spec.dtype) if spec.dtype != "bfloat16" else np.float32, copy=False)


def _class_names(
    path: Path, pairs: list[tuple[NDArray[Any], NDArray[Any]]], names: NDArray[Any] | None
) -> tuple[str, ...]:
    """Names stored as `classes`, else the numbers; empty where the target is no class number."""
    if any(y.dtype.kind not in "iu" or y.ndim != 1 for _, y in pairs):
        return ()
    count = 1 + max(int(y.max()) for _, y in pairs)
    if names is None:
        return tuple(str(i) for i in range(count))
    if names.ndim != 1 or len(names) < count:
        raise InputError(f"{path}: labels reach {count - 1}, but 'classes' has {names.size} names")
    return tuple(str(name) for name in names)


def _stratified(y: NDArray[Any], seed: int) -> NDArray[np.bool_]:
    """Marks the held-out samples: a tenth of every class (of all, where `y` is no class number)."""
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(y), dtype=bool)
    classes = [np.flatnonzero(y == c) for c in np.unique(y)] if y.ndim == 1 and y.dtype.kind in "iub" else []
    for members in classes or [np.arange(len(y))]:
        held_out[random.permutation(members)[: round(len(members) * _HELD_OUT)]] = True
    return held_out
