"""Resizing: bilinear where MIL documents the sampling points, nearest only where every reading is the same.

Sources: `resize_bilinear`, `upsample_bilinear`, `resize` in coremltools' `ops/defs/*/image_resizing.py`. For
the nearest neighbour no formula is documented; a whole factor of enlargement leaves no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 (its common name)
from torch import Tensor

from toolchain.verify.mil.refusal import Ambiguous


def points(size: int, wanted: int, mode: str) -> Tensor:
    """Where `wanted` samples lie among `size` pixels, [wanted] in float64, by MIL's sampling modes."""
    step = torch.arange(wanted, dtype=torch.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if wanted == 1:
            return torch.tensor([0.0 if mode.startswith("STRICT") else (size - 1) / 2], dtype=torch.float64)
        found = step * ((size - 1) / (wanted - 1))
    elif mode == "DEFAULT":
        found = step * ((size - size / wanted) / (wanted - 1)) if wanted > 1 else step
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size - 1) / wanted
        found = 0.5 * delta + step * delta
    elif mode == "UNALIGN_CORNERS":
        spacing = size / wanted
        found = step * spacing + 0.5 * spacing - 0.5
    else:
        raise Ambiguous(f"sampling mode '{mode}'")
    return found.clamp(0, size - 1)


def _linear(x: Tensor, axis: int, wanted: int, mode: str) -> Tensor:
    """Linear interpolation along one axis."""
    size = x.shape[axis]
    where = points(size, wanted, mode)
    low = where.floor().long()
    share = (where - low).float()
    high = (low + 1).clamp(max=size - 1)
    shape = [1] * x.dim()
    shape[axis] = wanted
    share = share.reshape(shape)
    return x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share


def _bilinear(x: Tensor, height: int, width: int, mode: str) -> Tensor:
    return _linear(_linear(x, -2, height, mode), -1, width, mode)


def _nearest(x: Tensor, height: int, width: int) -> Tensor:
    for axis, wanted in ((-2, height), (-1, width)):
        if wanted % x.shape[axis]:
            raise Ambiguous(f"the nearest neighbours of {x.shape[axis]} pixels enlarged to {wanted}")
        x = x.repeat_interleave(wanted // x.shape[axis], axis)
    return x


def _scaled(x: Tensor, height: Tensor | None, width: Tensor | None) -> tuple[int, int]:
    """Height and width times their factors, rounded down."""
    factors = (1.0 if f is None else float(f) for f in (height, width))
    tall, wide = (int(size * factor) for size, factor in zip(x.shape[-2:], factors, strict=True))
    return tall, wide


def _upsample_nearest(
    x: Tensor, scale_factor_height: Tensor | None = None, scale_factor_width: Tensor | None = None
) -> Tensor:
    return _nearest(x, *_scaled(x, scale_factor_height, scale_factor_width))


def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor | None = None,
    scale_factor_width: Tensor | None = None,
    align_corners: Tensor | None = None,
    half_pixel_centers: Tensor | None = None,
) -> Tensor:
    """The factor is computed anew from the size of the result."""
    aligned = align_corners is None or bool(align_corners)
    if half_pixel_centers is not None and bool(half_pixel_centers) == aligned:
        raise Ambiguous("align_corners and half_pixel_centers alike")
    size = _scaled(x, scale_factor_height, scale_factor_width)
    return _bilinear(x, *size, "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS")


def _resize_bilinear(
    x: Tensor,
    target_size_height: Tensor | None = None,
    target_size_width: Tensor | None = None,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    height, width = (1 if v is None else int(v) for v in (target_size_height, target_size_width))
    return _bilinear(x, height, width, sampling_mode)


def _resize_nearest(x: Tensor, target_size_height: Tensor, target_size_width: Tensor) -> Tensor:
    return _nearest(x, int(target_size_height), int(target_size_width))


def _resize(
    x: Tensor,
    shape: Tensor,
    resized_dims: Tensor,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """The last `resized_dims` dimensions take the sizes at the end of `shape`; 0 keeps one."""
    count = int(resized_dims)
    wanted = [size or x.shape[i - count] for i, size in enumerate(shape.tolist()[-count:])]
    if interpolation_mode == "LINEAR":
        for axis, size in enumerate(wanted, start=-count):
            x = _linear(x, axis, size, sampling_mode)
        return x
    if count != 2 or sampling_mode not in ("DEFAULT", "UNALIGN_CORNERS"):
        raise Ambiguous(f"the nearest neighbours of {count} dimensions in mode '{sampling_mode}'")
    return _nearest(x, *wanted)


def _resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Tensor,
    coordinates_mode: str,
    align_corners: Tensor,
) -> Tensor:
    """Bilinear sampling at points in -1..1, zeros or the border's pixels around the image."""
    around = {"constant": "zeros", "border": "border"}.get(padding_mode)
    plain = sampling_mode == "bilinear" and coordinates_mode == "normalized_minus_one_to_one"
    if not plain or around is None or (around == "zeros" and float(padding_value)):
        raise Ambiguous(f"'{sampling_mode}', padding '{padding_mode}', coordinates '{coordinates_mode}'")
    return F.grid_sample(
        x, coordinates, mode="bilinear", padding_mode=around, align_corners=bool(align_corners)
    )


OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "resample": _resample,
    "resize": _resize,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
