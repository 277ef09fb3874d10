"""The oracle's half of operators that compute over removable dimensions: statistics of what is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from torch import Tensor
from torch.fx import Node

from toolchain.program.axes import Axes, Call, call_of
from toolchain.program.constants import Cutting
from toolchain.program.tracing import Tracing

Positions = Mapping[int, Tensor]
_SHAPING: Final = ("view", "reshape", "unsqueeze", "expand", "permute", "transpose", "flatten")


def restrict(cut: Cutting) -> None:
    """Replace, in the copied graph, operators whose statistics would see removed elements."""
    tracing = cut.analysis.tracing
    for node in list(cut.module.graph.nodes):
        dims = tracing.restricted.get(cut.origin[node])
        call = call_of(node)
        if call is None:
            continue
        if dims:
            _restricted(cut, call)
        for operand, over in tracing.contracted.get(cut.origin[node], {}).items():
            own = next(n for n in node.all_input_nodes if cut.origin.get(n) is operand)
            _zeroed(cut, call, own, over)
        weight = call["weight"]
        computed = isinstance(weight, Node) and weight.op != "get_attr"
        if computed and (call.op.startswith("conv") or call.op == "linear"):
            _zeroed(cut, call, weight)


def divisors(tracing: Tracing) -> list[Axes]:
    """Parameters and constants that something is divided by.

    Zeros in them would make removed channels infinite, and infinity times a zeroed weight is not zero.
    """
    found: list[Axes] = []
    for node in tracing.module.graph.nodes:
        call = call_of(node)
        source = call["other"] if call is not None and call.op.startswith("div") else None
        while isinstance(source, Node) and (moved := call_of(source)) is not None and moved.op in _SHAPING:
            source = next(moved.tensors())
        if isinstance(source, Node) and source.op == "get_attr":
            found.append(tracing.axes(source))
    return found


def _restricted(cut: Cutting, call: Call) -> None:
    """Compute on the kept positions alone; where the result has the removed ones too, put zeros there."""
    source = next(call.tensors())
    kept = cut.partly_kept(cut.axes(source))
    if not kept:
        return
    if call.op.startswith("conv"):
        _zeroed(cut, call, source)
    elif call.op.startswith("_weight_norm"):
        own = {d: d for d in kept if call["dim"] != -1 and d == cut.axes(source).dim(call["dim"])}
        call.node.target = _Compressed(call.node.target, kept, {}, own=own, whole=True)
    elif "norm" in call.op and call.op not in ("norm", "linalg_vector_norm"):
        _normalised(cut, call, source, kept)
    else:
        dims = cut.analysis.tracing.restricted[cut.origin[call.node]]
        over = {d: p for d, p in kept.items() if d in dims}
        call.node.target = _Compressed(call.node.target, over, {}, whole="softmax" in call.op)


def _normalised(cut: Cutting, call: Call, source: Node, kept: Positions) -> None:
    axes = cut.axes(source)
    changed: dict[str, Any] = {}
    if "normalized_shape" in call.positions:
        shape = list(call["normalized_shape"])
        first = len(axes) - len(shape)
        changed["normalized_shape"] = [
            len(kept[first + i]) if first + i in kept else n for i, n in enumerate(shape)
        ]
        own = {first + i: i for i in range(len(shape))}
    else:
        groups = cut.fact(call, "groups")
        if groups is not None:
            changed["num_groups"] = int(cut.kept(groups).sum())
        own = {1: 0}
    call.node.target = _Compressed(call.node.target, kept, changed, own=own, whole=True)


class _Compressed:
    """An operator computed on selected positions of its first input (and of its weight and bias)."""

    def __init__(
        self,
        op: Any,
        kept: Positions,
        changed: Mapping[str, Any],
        *,
        own: Mapping[int, int] | None = None,
        whole: bool = False,
    ) -> None:
        self.op = op
        self.kept = kept
        self.changed = changed
        self.own = own or {}
        self.whole = whole
        self.__name__ = f"restricted_{op._schema.name.split('::')[-1]}"
        self.__module__ = __name__
        self.__qualname__ = self.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        names = [a.name for a in self.op._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **kwargs, **self.changed}
        first = names[0]
        x = given[first]
        small = _select(x, self.kept)
        given[first] = small
        for name in ("weight", "bias", "g"):
            if isinstance(given.get(name), Tensor) and self.own:
                given[name] = _select(
                    given[name], {self.own[d]: p for d, p in self.kept.items() if d in self.own}
                )
        result = self.op(**given)
        return _put_back(x, result, self.kept) if self.whole else result


def _select(x: Tensor, kept: Positions) -> Tensor:
    for dim, positions in kept.items():
        x = x.index_select(dim, positions)
    return x


def _put_back(x: Tensor, small: Tensor, kept: Positions) -> Tensor:
    """Zeros of the shape of x with `small` at the kept positions."""
    for dim, positions in reversed(list(kept.items())):
        shape = list(small.shape)
        shape[dim] = x.shape[dim]
        small = small.new_zeros(shape).index_copy(dim, positions, small)
    return small


def _zeroed(cut: Cutting, call: Call, operand: Node, over: Collection[int] | None = None) -> None:
    """Zero what is removed of an operand that the graph computes, along the dimensions `over` or all."""
    kept = cut.partly_kept(cut.axes(operand))
    if over is not None:
        kept = {d: positions for d, positions in kept.items() if d in over}
    if not kept:
        return

    def zeroed(x: Tensor) -> Tensor:
        return _put_back(x, _select(x, kept), kept)

    with cut.module.graph.inserting_before(call.node):
        new = cut.module.graph.call_function(zeroed, (operand,))
    call.node.replace_input_with(operand, new)
