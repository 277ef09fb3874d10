"""Operators that treat every element alone, and those that reduce along axes. Floats come in as float32.

The formulas are those of the MIL operator documentation (coremltools, `converters/mil/mil/ops/defs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 (its common name)
from torch import Tensor

from toolchain.verify.mil.refusal import Ambiguous


def _real_div(x: Tensor, y: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise Ambiguous("a division of integers")
    return x / y


def _clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, alpha), beta)


def _inverse(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return 1 / (x + (1e-4 if epsilon is None else epsilon))


def _log(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return torch.log(x + (1e-45 if epsilon is None else epsilon))


def _rsqrt(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return torch.rsqrt(x + (1e-12 if epsilon is None else epsilon))


def _gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def _clamped_relu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.where(x >= 0, x, alpha * x), beta)


def _elu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def _leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


def _per_channel(value: Tensor, rank: int) -> Tensor:
    """[C] for inputs [n, C, ...] of `rank` dimensions."""
    return value.reshape(1, -1, *[1] * (rank - 2))


def _prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, _per_channel(alpha, x.dim()) * x)


def _softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _per_channel(alpha, x.dim()) * F.softplus(_per_channel(beta, x.dim()) * x)


def _sigmoid_hard(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def _thresholded_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


def _softmax(x: Tensor, axis: Tensor | None = None) -> Tensor:
    return torch.softmax(x, -1 if axis is None else int(axis))


def _cast(x: Tensor, dtype: str) -> Tensor:
    """The declared type of the result says to what; floats lose their fraction on the way to integers."""
    del dtype
    return x


def _quantize(
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    """Input over scale, rounded (halves to even), plus zero point, within the range of the type."""
    factor, zero = _scales(input, scale, zero_point, axis)
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[output_dtype]
    return (torch.round(input / factor) + zero).clamp(low, high)


def _dequantize(
    input: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    """Input less zero point, times scale."""
    factor, zero = _scales(input, scale, zero_point, axis)
    return factor * (input.float() - zero)


def _scales(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, axis: Tensor | None
) -> tuple[Tensor, Tensor]:
    shape = [1] * x.dim()
    if scale.dim():
        if axis is None:
            raise Ambiguous("a scale for each channel without its axis")
        shape[int(axis)] = scale.numel()
    zero = torch.zeros_like(scale) if zero_point is None else zero_point.float()
    return scale.reshape(shape), zero.reshape(shape if zero.dim() else [1] * x.dim())


def _reduction(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reduction over `axes` (all, when there are none); `step(x, axes, keep)`."""

    def reduced(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
        along = list(range(x.dim())) if axes is None else [a % x.dim() for a in axes.tolist()]
        return step(x, along, keep_dims is not None and bool(keep_dims))

    return reduced


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _extreme(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def found(
        x: Tensor, axis: Tensor | None = None, keep_dims: Tensor | None = None, output_dtype: str = "int32"
    ) -> Tensor:
        del output_dtype  # declared for the result too
        return step(x, -1 if axis is None else int(axis), keep_dims is not None and bool(keep_dims))

    return found


def _l2_norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.square().sum(axes, keepdim=keep).sqrt()


def _one(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x: step(x)


def _two(step: Callable[..., Any]) -> Callable[..., Tensor]:
    return lambda x, y: step(x, y)


_ALIKE: Final = (
    *(
        "abs",
        "acos",
        "asin",
        "atan",
        "atanh",
        "ceil",
        "cos",
        "cosh",
        "erf",
        "exp",
        "exp2",
        "floor",
        "logical_not",
    ),
    *("relu", "round", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh"),
)
"""Of one operand, called in torch as in MIL. Halves are rounded to even, as coremltools' evaluation does."""
_BINARY: Final[Mapping[str, Callable[..., Any]]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "sub": torch.sub,
}
"""Of two operands. `mod` has the sign of its divisor, as in coremltools' evaluation."""
OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    **{name: _one(getattr(torch, name)) for name in _ALIKE},
    **{name: _two(step) for name, step in _BINARY.items()},
    "cast": _cast,
    "clamped_relu": _clamped_relu,
    "clip": _clip,
    "dequantize": _dequantize,
    "elu": _elu,
    "gelu": _gelu,
    "inverse": _inverse,
    "leaky_relu": _leaky_relu,
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "log": _log,
    "prelu": _prelu,
    "quantize": _quantize,
    "real_div": _real_div,
    "reduce_argmax": _extreme(lambda x, axis, keep: x.argmax(axis, keepdim=keep)),
    "reduce_argmin": _extreme(lambda x, axis, keep: x.argmin(axis, keepdim=keep)),
    "reduce_l1_norm": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "reduce_l2_norm": _reduction(_l2_norm),
    "reduce_log_sum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "reduce_log_sum_exp": _reduction(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "reduce_mean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "reduce_min": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "reduce_prod": _reduction(_product),
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "reduce_sum_square": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "relu6": lambda x: x.clamp(0, 6),
    "rsqrt": _rsqrt,
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "sigmoid_hard": _sigmoid_hard,
    "silu": _one(F.silu),
    "softmax": _softmax,
    "softplus": _one(F.softplus),
    "softplus_parametric": _softplus_parametric,
    "softsign": _one(F.softsign),
    "threshold": lambda x, alpha: torch.maximum(x, alpha),
    "thresholded_relu": _thresholded_relu,
}
