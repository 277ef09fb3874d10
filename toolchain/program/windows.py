"""What a convolution's kernel sees of its input, position by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import pad


def windows(x: Tensor, weight: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """A view of `x` [n, c, ...] (or [c, ...]): [n, c, *output positions, *kernel].

    `arguments` are the convolution's: stride, padding, dilation.
    """
    spatial = weight.dim() - 2
    x = x if x.dim() == weight.dim() else x[None]
    kernel = tuple(weight.shape[2:])
    stride, dilation = (_each(arguments[name], spatial) for name in ("stride", "dilation"))
    x = pad(x, _padding(arguments["padding"], kernel, dilation))
    for d in range(spatial):
        x = x.unfold(2 + d, dilation[d] * (kernel[d] - 1) + 1, stride[d])[..., :: dilation[d]]
    return x


def _each(value: Any, count: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * count if len(values) == 1 else values


def _padding(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
    """Zeros before and after each dimension, the last dimension first."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [side for total in reversed(whole) for side in (total // 2, total - total // 2)]
    return [side for amount in reversed(_each(padding, len(kernel))) for side in (amount, amount)]
