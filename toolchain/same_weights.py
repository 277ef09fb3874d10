"""Which operators of an exported file are the layers that are to stay in float.

Converters rename layers and move the axes of weights, but keep every number: a layer is known by its weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from toolchain.errors import ConversionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolchain.contracts import Weights

T = TypeVar("T")


def operators_of(
    layers: Weights, operators: Iterable[tuple[T, NDArray[Any]]], *, kind: str = "float32"
) -> list[T]:
    """Those operators whose weights hold the numbers of one of `layers`, in whatever order of axes.

    Args:
        layers: weights by layer name.
        operators: (operator, its weights) of the file.
        kind: the type in which the file stores weights.

    Raises:
        ConversionError: a layer is not among them.
    """
    sizes = {weight.size for weight in layers.values()}
    known: dict[bytes, list[T]] = {}
    for operator, weight in operators:
        if weight.size in sizes:
            known.setdefault(_numbers(weight, kind), []).append(operator)
    found: list[T] = []
    for name, weight in layers.items():
        same = known.get(_numbers(weight, kind))
        if same is None:
            raise ConversionError(
                f"the weights of layer '{name.removesuffix('.weight')}' are not in the exported file, so it "
                "cannot be kept in float",
                hint="leave mixed out of --precision",
            )
        found += same
    return found


def _numbers(weight: NDArray[Any], kind: str) -> bytes:
    """All values, sorted."""
    import numpy as np

    # Rounded to the file's type, but sorted as float32: numpy 2.4 sorts float16 wrongly on some processors.
    return bytes(np.sort(weight.astype(kind).astype(np.float32), axis=None).tobytes())
