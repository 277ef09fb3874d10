"""Operators that make tensors from sizes, and those that have no channels at all."""

from __future__ import annotations

from typing import Final

from torch.fx import Node

from toolchain.program.axes import Call, Value, plain
from toolchain.program.labels import Vector
from toolchain.program.tracing import Rule, Tracing


def made(t: Tracing, call: Call) -> Value:
    """Given: a literal size. Result: positions of their own, which go with what they are joined to."""
    sizes = call["size"]
    labels: dict[int, Vector] = {
        d: None if isinstance(size, Node) else t.labels.mint(size) for d, size in enumerate(sizes)
    }
    return t.yields(call.node, labels)


def counted(t: Tracing, call: Call) -> Value:
    """Ranges and random numbers: their values depend on the position, which therefore stays."""
    return plain(t.shape(call.node))


def checked(t: Tracing, call: Call) -> Value:
    """Checks and questions about sizes move no channels."""
    return None


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        ["zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"], made
    ),
    **dict.fromkeys(
        ["arange", "linspace", "eye", "scalar_tensor", "tril_indices", "triu_indices", "rand", "randn"],
        counted,
    ),
    **dict.fromkeys(
        [
            "sym_size",
            "sym_numel",
            "sym_stride",
            "size",
            "_assert_tensor_metadata",
            "_assert_async",
            "_assert_scalar",
            "item",
            "sym_constrain_range",
            "sym_constrain_range_for_size",
        ],
        checked,
    ),
}
