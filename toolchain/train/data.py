"""Opening labelled data: an image folder, an `.npz` file, or the user's own loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from toolchain.contracts import Data
from toolchain.errors import InputError
from toolchain.train.arrays import open_arrays
from toolchain.train.images import open_images
from toolchain.train.loaders import open_loaders
from toolchain.values import Preprocessing, TensorSpec

_HINT: Final = (
    "give an image folder with train/ and val/, an .npz file with x and y, or package.module:function"
)


def open_data(
    spec: str,
    *,
    preprocessing: Preprocessing,
    program_inputs: tuple[TensorSpec, ...],
    classes: int | None = None,
    seed: int = 0,
) -> Data:
    """The data named by `spec`, shaped for a network with `program_inputs`.

    `classes` is the number of the network's classes where it is known. `seed` fixes the split of an `.npz`
    without a validation part.

    Raises:
        InputError: nothing there, unreadable, or not fitting the network.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        data: Data = open_images(path, preprocessing=preprocessing, spec=_first(program_inputs, spec))
    elif path.is_file():
        data = open_arrays(path, preprocessing=preprocessing, spec=_first(program_inputs, spec), seed=seed)
    elif ":" in spec and "/" not in spec:
        data = open_loaders(spec, program_inputs=program_inputs)
    else:
        raise InputError(f"data not found: {spec}", hint=_HINT)
    if classes is not None and len(data.classes) > classes:
        raise InputError(
            f"{spec}: {len(data.classes)} classes, but the network has {classes}",
            hint="use the data that the network was trained for",
        )
    return data


def _first(inputs: tuple[TensorSpec, ...], spec: str) -> TensorSpec:
    """The only input of the network: folders and .npz files hold one tensor a sample."""
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs)
        raise InputError(
            f"{spec}: the network has {len(inputs)} inputs ({names}), this kind of data feeds one",
            hint="use package.module:function returning loaders that yield ((input, ...), target)",
        )
    return inputs[0]
