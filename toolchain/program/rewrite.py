"""Applying a choice of channels: slice the parameters, rewrite the constants that depend on widths.

`apply` gives the pruned program, `mask` its oracle: the original with the removed elements zeroed.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from toolchain.errors import InputError
from toolchain.program.axes import Axes, attribute, call_of
from toolchain.program.channels import Analysis, examine
from toolchain.program.constants import REWRITES, Cutting
from toolchain.program.copying import duplicate
from toolchain.program.masking import divisors, restrict
from toolchain.program.summing import summed
from toolchain.values import Channels, Program

Keep = Mapping[str, tuple[int, ...]]


def apply(program: Program, channels: Channels, keep: Keep) -> Program:
    """The program with only the units `keep[group]` of each named group; groups not named stay whole.

    Parameters and buffers are sliced into new tensors, sizes in the graph are rewritten; the program handed
    in is not changed. The result can be analysed, trained, exported and pruned again; no addition of it is
    loose.

    Args:
        program: what was analysed.
        channels: what `analyse(program)` gave.
        keep: ascending unit numbers by group name, at least one each.

    Raises:
        InputError: an unknown group or unit, no unit left, or units out of order.
    """
    analysis = examine(program)
    _check(channels, analysis, keep)
    return applied(program, analysis, keep)


def applied(program: Program, analysis: Analysis, keep: Keep) -> Program:
    """`apply` for groups of this analysis of the program; specs of inputs are left as they are."""
    cutting = _cutting(program, analysis, keep, sliced=True)
    for node in list(cutting.module.graph.nodes):
        call = call_of(node)
        if call is not None and call.op in REWRITES:
            REWRITES[call.op](cutting, call)
    known: dict[Any, Tensor] = {}
    for node, origin in cutting.origin.items():
        node.meta["val"] = _resized(cutting, analysis.tracing.values.get(origin), node.meta.get("val"), known)
    summed(cutting)
    return replace(program, module=cutting.module, loose=())


def mask(program: Program, channels: Channels, keep: Keep) -> Program:
    """The oracle: the original, of unchanged shape, with the elements zeroed that `apply` removes.

    Where an operator computes statistics over a removable dimension, they are restricted to what is kept.
    Its graph holds plain Python functions: it can be run, not exported.
    """
    analysis = examine(program)
    _check(channels, analysis, keep)
    cutting = _cutting(program, analysis, keep, sliced=False)
    divide = divisors(analysis.tracing)
    with torch.no_grad():
        for name, axes in analysis.tracing.parameters.items():
            tensor = attribute(cutting.module, name)
            if tensor.dtype.is_floating_point:
                for dim, staying in cutting.partly_kept(axes).items():
                    gone = torch.ones(tensor.shape[dim], dtype=torch.bool).index_fill_(0, staying, 0)
                    tensor.index_fill_(dim, gone.nonzero().flatten(), int(any(axes is d for d in divide)))
    restrict(cutting)
    return replace(program, module=cutting.module)


def _check(channels: Channels, analysis: Analysis, keep: Keep) -> None:
    known = {g.name: g.size for g in analysis.channels.groups}
    least = {g.name: g.minimum for g in analysis.channels.groups}
    if {g.name: g.size for g in channels.groups} != known:
        raise InputError(
            "these channel groups are not those of the program", hint="analyse the program again"
        )
    for name, units in keep.items():
        if name not in known:
            raise InputError(f"the network has no channel group '{name}'", hint=f"known: {', '.join(known)}")
        ordered = list(units) == sorted(set(units))
        if len(units) < least[name] or not ordered or units[0] < 0 or units[-1] >= known[name]:
            raise InputError(
                f"group '{name}': kept units must be ascending numbers in 0-{known[name] - 1},"
                f" at least {least[name]}"
            )


def _cutting(program: Program, analysis: Analysis, keep: Keep, *, sliced: bool) -> Cutting:
    """A copy of the graph beside its analysis; parameters already sliced, or copied whole."""
    cutting = Cutting(analysis=analysis, stays=analysis.kept_atoms(keep), module=program.module, origin={})
    axes_of: dict[int, Axes] = {}
    if sliced:
        tracing = analysis.tracing
        axes_of = {id(attribute(program.module, n)): axes for n, axes in tracing.parameters.items()}

    def cut(tensor: Tensor) -> Tensor:
        axes = axes_of.get(id(tensor))
        return _sliced(tensor, {} if axes is None else cutting.partly_kept(axes))

    module, origin = duplicate(program.module, cut)
    return replace(cutting, module=module, origin=origin)


def _sliced(tensor: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    result = tensor.detach()
    for dim, positions in kept.items():
        result = result.index_select(dim, positions)
    if not kept:
        result = result.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(result, requires_grad=tensor.requires_grad)
    return result


def _resized(cutting: Cutting, value: object, meta: Any, known: dict[Any, Tensor]) -> Any:
    """The fake tensor(s) of a node in their new shape; making one is slow, so equal shapes share it."""
    if isinstance(value, tuple) and isinstance(meta, list | tuple):
        return type(meta)(_resized(cutting, v, m, known) for v, m in zip(value, meta, strict=True))
    if not isinstance(value, Axes) or not isinstance(meta, Tensor):
        return meta
    kept = cutting.partly_kept(value)
    if not kept:
        return meta
    shape = list(meta.shape)
    for dim, positions in kept.items():
        new, old = len(positions), value.shape[dim]
        symbolic = not isinstance(shape[dim], int)
        shape[dim] = operator.floordiv(shape[dim] * new, old) if symbolic else new
    key = (meta.dtype, *(n if isinstance(n, int) else n.node.expr for n in shape))
    if key not in known:
        # meta.new_empty(shape) would be the same, after a dispatch ten times as long as this.
        empty = torch.empty(shape, dtype=meta.dtype, device="meta")
        known[key] = FakeTensor(meta.fake_mode, empty, meta.device) if isinstance(meta, FakeTensor) else empty
    return known[key]


__all__ = ["Keep", "applied", "apply", "mask"]
