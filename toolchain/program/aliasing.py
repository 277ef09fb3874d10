"""Operators that copy or share memory as their input's layout asks, where something is written in place.

Given:  y = contiguous(permute(x)), then y *= 2
Result: y = contiguous(clone(permute(x))), then y *= 2

`contiguous`, `reshape` and `flatten` copy only what is laid out otherwise. Of a permuted image with one
channel left, nothing is, so that a pruned network would write into x. What was copied at capture is copied
whatever is left of it.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain.program.axes import call_of
from toolchain.program.rules.parting import is_written, sharing

_EITHER: Final = ("contiguous", "reshape", "reshape_as", "flatten", "ravel")


def keep_copies(module: GraphModule) -> None:
    """Put a copy in front of such operators in place, where anything is written into what they may share."""
    for node in list(module.graph.nodes):
        call = call_of(node)
        if call is None or call.op not in _EITHER or not _shares_what_changes(node) or not _copies(node):
            continue
        source = call["self"]
        with module.graph.inserting_before(node):
            copy = module.graph.call_function(
                torch.ops.aten.clone.default, (source,), {"memory_format": torch.contiguous_format}
            )
        copy.meta = {**node.meta, "val": copy.target(source.meta["val"], **copy.kwargs)}  # type: ignore[operator]
        node.replace_input_with(source, copy)


def _shares_what_changes(node: Node) -> bool:
    return any(is_written(view, user) for view in sharing(node) for user in view.users)


def _share(one: Tensor, other: Tensor) -> bool:
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)


def _copies(node: Node) -> bool:
    """Whether it copied at capture: tried on the tensors without values that the graph was captured with."""
    source = node.args[0].meta["val"]  # type: ignore[union-attr]
    args = torch.fx.node.map_arg(node.args, lambda n: n.meta["val"])
    kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: n.meta["val"])
    result = node.target(*args, **kwargs)  # type: ignore[operator]
    return isinstance(result, Tensor) and not _share(source, result)
