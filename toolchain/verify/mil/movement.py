"""Operators that move elements and compute nothing: values come out in the type that they came in.

The meanings are those of the MIL operator documentation (coremltools, `converters/mil/mil/ops/defs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 (its common name)
from torch import Tensor

from toolchain.verify.mil.refusal import Ambiguous


def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    """0 keeps the dimension at that place, counted from the right; all files of ours are of iOS 17."""
    sizes = shape.tolist()
    if 0 in sizes and len(sizes) != x.dim():
        raise Ambiguous("a shape with 0 for another number of dimensions")
    return x.reshape([size or x.shape[i] for i, size in enumerate(sizes)])


def _expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(a % rank for a in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    if axes is None:
        return x.squeeze()
    if any(x.shape[a] != 1 for a in axes.tolist()):
        raise Ambiguous("an axis of more than one element squeezed")
    return x.squeeze(tuple(axes.tolist()))


def _slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    rank = x.dim()
    none = [False] * rank
    open_, until, single = (none if m is None else m.tolist() for m in (begin_mask, end_mask, squeeze_mask))
    steps = [1] * rank if stride is None else stride.tolist()
    first, last = begin.tolist(), end.tolist()
    for axis in range(rank):
        size, step = x.shape[axis], steps[axis]
        if single[axis]:
            place = range(size)[first[axis]]
            picked = range(place, place + 1)
        else:
            start = None if open_[axis] else first[axis]
            picked = range(size)[start : None if until[axis] else last[axis] : step]
        if picked != range(size):
            x = _picked(x, axis, picked)
    return x.squeeze(tuple(axis for axis in range(rank) if single[axis]))


def _picked(x: Tensor, axis: int, places: range) -> Tensor:
    """The elements at `places` along an axis; a view where they follow each other."""
    if places.step == 1 and places:
        return x.narrow(axis, places[0], len(places))
    return x.index_select(axis, torch.tensor(places, dtype=torch.int64))


def _slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    for axis, (start, count) in enumerate(zip(begin.tolist(), size.tolist(), strict=True)):
        start = start % x.shape[axis] if start < 0 else start
        x = x.narrow(axis, start, x.shape[axis] - start if count == -1 else count)
    return x


def _concat(values: Any, axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    parts = values if isinstance(values, list) else [values]
    along = int(axis)
    if interleave is not None and bool(interleave):
        along %= parts[0].dim()
        return torch.stack(parts, along + 1).flatten(along, along + 1)
    return torch.cat([p.reshape(1) if p.dim() == 0 else p for p in parts], along)


def _stack(values: Any, axis: Tensor) -> Tensor:
    return torch.stack(values if isinstance(values, list) else [values], int(axis))


def _split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    along = int(axis)
    if split_sizes is not None:
        return torch.split(x, split_sizes.tolist(), along)
    assert num_splits is not None
    return torch.split(x, x.shape[along] // int(num_splits), along)


def _pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | None = None) -> Tensor:
    """(before, after) for each of the last dimensions, the outermost first."""
    sizes = pad.tolist()
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    if mode == "constant":
        value = 0.0 if constant_val is None else constant_val.item()
        return F.pad(x, [size for pair in reversed(pairs) for size in pair], value=value)
    for axis, (before, after) in enumerate(pairs, start=x.dim() - len(pairs)):
        size = x.shape[axis]
        places = torch.arange(-before, size + after)
        if mode == "replicate":
            places = places.clamp(0, size - 1)
        elif mode == "reflect" and max(before, after) < size:
            places = size - 1 - (size - 1 - places.abs()).abs()
        else:
            raise Ambiguous(f"padding '{mode}' by {before}, {after} around {size}")
        if before or after:
            x = x.index_select(axis, places)
    return x


def _gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
    batch_dims: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:
    """x.shape[:axis] + indices.shape + x.shape[axis + 1:]."""
    del validate_indices  # they are always validated here
    along = (0 if axis is None else int(axis)) % x.dim()
    if batch_dims is not None and int(batch_dims):
        raise Ambiguous("gathering with batch dimensions")
    found = x.index_select(along, _places(indices, x.shape[along]).reshape(-1))
    return found.reshape(*x.shape[:along], *indices.shape, *x.shape[along + 1 :])


def _gather_along_axis(
    x: Tensor, indices: Tensor, axis: Tensor | None = None, validate_indices: Tensor | None = None
) -> Tensor:
    del validate_indices
    along = (0 if axis is None else int(axis)) % x.dim()
    return x.gather(along, _places(indices, x.shape[along]))


def _gather_nd(
    x: Tensor,
    indices: Tensor,
    batch_dims: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:
    del validate_indices
    if batch_dims is not None and int(batch_dims):
        raise Ambiguous("gathering with batch dimensions")
    parts = indices.unbind(-1)
    return x[tuple(_places(part, x.shape[i]) for i, part in enumerate(parts))]


def _places(indices: Tensor, size: int) -> Tensor:
    """As int64; what iOS 17 calls out of bounds and leaves undefined is refused."""
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= size):
        raise Ambiguous(f"an index outside 0..{size - 1}")
    return indices.long()


def _band_part(x: Tensor, lower: Tensor | None = None, upper: Tensor | None = None) -> Tensor:
    below, above = (-1 if v is None else int(v) for v in (lower, upper))
    if below >= 0:
        x = x.triu(-below)
    return x.tril(above) if above >= 0 else x


def _fill(shape: Tensor, value: Tensor | None = None) -> Tensor:
    filling = torch.zeros(()) if value is None else value
    return filling.expand(shape.tolist())


def _flatten2d(x: Tensor, axis: Tensor | None = None) -> Tensor:
    along = 1 if axis is None else int(axis) % x.dim()
    return x.reshape(x.shape[:along].numel(), -1)


def _crop(x: Tensor, crop_height: Tensor, crop_width: Tensor) -> Tensor:
    for axis, (before, after) in ((-2, crop_height.tolist()), (-1, crop_width.tolist())):
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x


def _sliding_windows(x: Tensor, axis: Tensor, size: Tensor, stride: Tensor | None = None) -> Tensor:
    along = int(axis) % x.dim()
    return x.unfold(along, int(size), 1 if stride is None else int(stride)).movedim(-1, along + 1)


def _shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "band_part": _band_part,
    "concat": _concat,
    "crop": _crop,
    "expand_dims": _expand_dims,
    "fill": _fill,
    "flatten2d": _flatten2d,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "identity": lambda x: x,
    "pad": _pad,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, int(downscale_factor)),
    "reshape": _reshape,
    "reverse": lambda x, axes=None: x.flip(list(range(x.dim())) if axes is None else axes.tolist()),
    "shape": _shape,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "sliding_windows": _sliding_windows,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": lambda x, reps: x.repeat(reps.tolist()),
    "transpose": lambda x, perm: x.permute(perm.tolist()),
}
