"""Compressed weights expanded: the `constexpr_` operators of iOS 16 and iOS 18, as coremltools decodes them.

The numbers are those that coremltools' own decoders give, bit for bit: the order of roundings is theirs.
Sources: the documentation of `constexpr_affine_dequantize`, `constexpr_lut_to_dense`,
`constexpr_sparse_to_dense` (iOS 16), `constexpr_blockwise_shift_scale` and the sparse forms (iOS 18).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from toolchain.verify.mil.reading import unpacked
from toolchain.verify.mil.refusal import Ambiguous

Array = np.ndarray[Any, Any]


def affine(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    """Data less zero point, times scale, in float32, rounded to the scale's type; one each along `axis`."""
    data, along = quantized_data.numpy(), int(axis)
    factor, zero = (_along(value.numpy(), data.ndim, along) for value in (scale, zero_point))
    wide = (data.astype(np.float32) - zero.astype(np.float32)) * factor.astype(np.float32)
    return _tensor(wide.astype(factor.dtype))


def _along(value: Array, rank: int, axis: int) -> Array:
    """A scalar, or a vector along `axis`, with `rank` dimensions."""
    shape = [1] * rank
    if value.ndim:
        shape[axis] = value.size
    return value.reshape(shape)


def cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """fp16 kept in the file for an fp32 weight."""
    if output_dtype != "fp32":
        raise Ambiguous(f"a cast to {output_dtype}")
    return source_val.float()


def lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: Tensor | None = None
) -> Tensor:
    """Every index replaced by its entry of the table.

    With `shape` (iOS 16) indices are packed bits and the table is [entries]. Else indices are [*d] and the
    tables [*tables, entries, vector]: one for each block of indices; a vector fills `vector_axis`.
    """
    if shape is not None:
        sizes, bits = tuple(shape.tolist()), int(math.log2(lut.numel()))
        return lut[torch.from_numpy(unpacked(indices.numpy(), math.prod(sizes), bits)).long()].reshape(sizes)
    tables, keys = lut.numpy(), indices.numpy()
    number = np.arange(math.prod(tables.shape[:-2])).reshape(tables.shape[:-2])
    flat = tables.reshape(-1, *tables.shape[-2:])
    found = flat[_as_blocks(number, keys.shape), keys]  # [*d, vector]
    if found.shape[-1] == 1:
        return _tensor(found[..., 0])
    if vector_axis is None:
        raise Ambiguous("a table of vectors without their axis")
    axis = int(vector_axis) % keys.ndim
    moved = np.moveaxis(found, -1, axis + 1)
    return _tensor(moved.reshape(*keys.shape[:axis], -1, *keys.shape[axis + 1 :]))


def _as_blocks(value: Array, shape: tuple[int, ...]) -> Array:
    """Each entry repeated over its block: `shape` is a multiple of the value's in every dimension."""
    for axis, size in enumerate(shape):
        value = np.repeat(value, size // value.shape[axis], axis)
    if value.shape != shape:
        raise Ambiguous(f"blocks that do not divide {shape}")
    return value


def sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Tensor | None = None) -> Tensor:
    """Zeros but where the mask has a bit; with `shape` (iOS 16) the mask is packed bits."""
    bits = mask.numpy()
    if shape is not None:
        sizes = tuple(shape.tolist())
        bits = unpacked(bits, math.prod(sizes), 1).reshape(sizes)
    dense = np.zeros(bits.shape, nonzero_data.numpy().dtype)
    dense[bits != 0] = nonzero_data.numpy()
    return _tensor(dense)


def blockwise(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """Data less offset, times scale, in the scale's type; one of each for every block of the data."""
    factor = scale.numpy()
    wide = data.numpy().astype(factor.dtype)
    if offset is not None:
        wide = wide - _as_blocks(offset.numpy(), wide.shape)
    return _tensor(_as_blocks(factor, wide.shape) * wide)


def lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask and the entries of the table behind the indices that it marks."""
    dense = lut_to_dense(sparse_to_dense(indices_nonzero_data, indices_mask), lut, None, vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], int(vector_axis))
    return mask, dense[mask != 0]


def sparse_blockwise(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask and the scaled data that it marks."""
    dense = blockwise(sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


DECODERS: Final[Mapping[str, Callable[..., Any]]] = {
    "constexpr_affine_dequantize": affine,
    "constexpr_blockwise_shift_scale": blockwise,
    "constexpr_cast": cast,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
