"""Layers: convolutions, products, pooling, normalisation, attention. Floats come in as float32.

The meanings are those of the MIL operator documentation (coremltools, `converters/mil/mil/ops/defs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 (its common name)
from torch import Tensor

from toolchain.verify.mil.refusal import Ambiguous

_CONV: Final = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: Final = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL: Final = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: Final = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
Pairs = list[tuple[int, int]]


def _ints(value: Tensor | None, default: Sequence[int]) -> list[int]:
    return list(default) if value is None else [int(v) for v in value.tolist()]


def _around(
    pad_type: str, pad: Tensor | None, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> Pairs:
    """Padding (before, after) of each spatial dimension; `reach` is the extent of the dilated kernel.

    `same` is documented twice: by the size of the result, and by the kernel alone. Where the two differ, or
    the odd element could be on either side, it is refused.
    """
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        if pad is None:
            raise Ambiguous("padding 'custom' without its amounts")
        amounts = pad.tolist()
        return list(zip(amounts[::2], amounts[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise Ambiguous(f"padding '{pad_type}'")
    found = []
    for size, kernel, stride in zip(sizes, reach, strides, strict=True):
        total = max(0, stride * (-(-size // stride)) - size + kernel - stride)
        if total % 2 or total != kernel - 1:
            raise Ambiguous(f"padding '{pad_type}' of kernel {kernel}, stride {stride} over {size}")
        found.append((total // 2, total // 2))
    return found


def _padded(x: Tensor, around: Pairs, value: float = 0.0) -> tuple[Tensor, list[int]]:
    """The input and the padding that the layer still has to do itself: the same on both sides."""
    if all(before == after for before, after in around):
        return x, [before for before, _ in around]
    return F.pad(x, [n for pair in reversed(around) for n in pair], value=value), [0] * len(around)


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    rank = x.dim() - 2
    steps, spread = (_ints(v, [1] * rank) for v in (strides, dilations))
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], spread, strict=True)]
    x, padding = _padded(x, _around(pad_type, pad, x.shape[2:], reach, steps))
    count = 1 if groups is None else int(groups)
    return _CONV[rank](x, weight, bias, steps, padding, spread, count)


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """The whole transposed convolution, of which `pad` is cut off. `output_shape` must agree with that."""
    rank = x.dim() - 2
    if pad_type not in ("valid", "custom"):
        raise Ambiguous(f"padding '{pad_type}' of a transposed convolution")
    steps, spread = (_ints(v, [1] * rank) for v in (strides, dilations))
    count = 1 if groups is None else int(groups)
    found = _TRANSPOSED[rank](x, weight, bias, steps, 0, 0, count, spread)
    cuts = _around(pad_type, pad, [], [], []) if pad_type == "custom" else [(0, 0)] * rank
    for axis, (before, after) in enumerate(cuts, start=2):
        found = found.narrow(axis, before, found.shape[axis] - before - after)
    if output_shape is not None and output_shape.tolist() != list(found.shape):
        raise Ambiguous(f"output_shape {output_shape.tolist()} where padding leaves {list(found.shape)}")
    return found


def _pooling(
    x: Tensor, kernel_sizes: Tensor, strides: Tensor | None, pad_type: str, pad: Tensor | None
) -> tuple[list[int], list[int], Pairs]:
    kernel, steps = kernel_sizes.tolist(), _ints(strides, [1] * (x.dim() - 2))
    return kernel, steps, _around(pad_type, pad, x.shape[2:], kernel, steps)


def _max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    kernel, steps, around = _pooling(x, kernel_sizes, strides, pad_type, pad)
    if any(2 * max(pair) > k for pair, k in zip(around, kernel, strict=True)):
        raise Ambiguous("padding of more than half the window")
    x, padding = _padded(x, around, float("-inf"))
    rounded_up = ceil_mode is not None and bool(ceil_mode)
    return _MAX_POOL[x.dim() - 2](x, kernel, steps, padding, ceil_mode=rounded_up)


def _avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    exclude_padding_from_average: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    """Padding counts as zeros or not at all; what hangs over in `ceil_mode` counts as in PyTorch."""
    kernel, steps, around = _pooling(x, kernel_sizes, strides, pad_type, pad)
    excluded = exclude_padding_from_average is not None and bool(exclude_padding_from_average)
    rounded_up = ceil_mode is not None and bool(ceil_mode)
    pool = _AVERAGE[x.dim() - 2]
    if all(a == b and 2 * a <= k for (a, b), k in zip(around, kernel, strict=True)):
        padding = [before for before, _ in around]
        return pool(x, kernel, steps, padding, ceil_mode=rounded_up, count_include_pad=not excluded)
    if rounded_up:
        raise Ambiguous("ceil_mode with padding that differs between sides")
    flat = [n for pair in reversed(around) for n in pair]
    mean = pool(F.pad(x, flat), kernel, steps)
    return mean / pool(F.pad(torch.ones_like(x), flat), kernel, steps) if excluded else mean


def _matmul(
    x: Tensor, y: Tensor, transpose_x: Tensor | None = None, transpose_y: Tensor | None = None
) -> Tensor:
    if transpose_x is not None and bool(transpose_x) and x.dim() > 1:
        x = x.transpose(-1, -2)
    if transpose_y is not None and bool(transpose_y) and y.dim() > 1:
        y = y.transpose(-1, -2)
    return x @ y


def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=_small(epsilon))


def _small(epsilon: Tensor | None) -> float:
    return 1e-5 if epsilon is None else float(epsilon)


def _instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Tensor | None = None
) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=_small(epsilon))


def _layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    along = sorted(a % x.dim() for a in _ints(axes, range(x.dim())))
    shape = [x.shape[i] if i in along else 1 for i in range(x.dim())]
    centred = x - x.mean(along, keepdim=True)
    found = centred * torch.rsqrt(centred.square().mean(along, keepdim=True) + _small(epsilon))
    found = found if gamma is None else found * gamma.reshape(shape)
    return found if beta is None else found + beta.reshape(shape)


def _l2_norm(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    total = x.square().sum((-3, -2, -1), keepdim=True)
    return x / torch.sqrt(total + (1e-6 if epsilon is None else epsilon))


def _local_response_norm(
    x: Tensor,
    size: Tensor,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    k: Tensor | None = None,
) -> Tensor:
    if int(size) % 2 == 0:
        raise Ambiguous("an even number of neighbouring channels")
    values = [d if v is None else float(v) for v, d in ((alpha, 1e-4), (beta, 0.75), (k, 1.0))]
    return F.local_response_norm(x, int(size), *values)


def _einsum(values: Any, equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)


OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "einsum": _einsum,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "local_response_norm": _local_response_norm,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "scaled_dot_product_attention": _attention,
}
