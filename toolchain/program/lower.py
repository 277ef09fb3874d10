"""Rewrites that make a graph cheaper to convert and to run; applied to what is exported, never trained.

Given:  pad(x[:, :, ::s, ::s], channels=(a, b), value=0)      the ResNet option-A shortcut
Result: conv2d(x, W [a + C + b, C, 1, 1], stride=s)           W[a + i, i] = 1

Given:  that, of which index_select takes channels              an operand of a sum, zeros where it has none
Result: conv2d(x, W[places], stride=s)

What depends on parameters alone is computed (position biases, normalised weights), batch norms go into the
layers before them; dropout, which does nothing in eval mode, goes, and so do expansions before operators that
broadcast by themselves (on which the TFLite converter fails between convolutions).

Runtimes execute strided slices and channel pads as memory copies outside their blocked or quantized layouts,
with a layout change before and after; the convolution stays inside, and int8 holds its ones exactly.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Final

import torch
from torch.fx import GraphModule, Node

from toolchain.program.axes import attribute, call_of
from toolchain.program.fold import fold_constants
from toolchain.program.merging import merge_norms
from toolchain.values import Program

_aten = torch.ops.aten
_DROPOUT: Final = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_EXPANDING: Final = ("expand", "expand_as")
_BROADCASTING: Final = tuple(getattr(_aten, name).Tensor for name in ("add", "sub", "mul", "div"))
_END: Final = 2**31
WIDEST: Final = 256
"""Channels up to which the convolution is cheaper than the copies (its cost grows with their square)."""


def lower(program: Program) -> Program:
    """A program that computes the same, up to rounding, in fewer operators; the original where it has none.

    Untouched tensors are shared with `program`, so that a large network is not held twice.
    """
    module = GraphModule(program.module, copy.deepcopy(program.module.graph))
    changed = 0
    for node in list(module.graph.nodes):
        pads = _channel_pads(node)
        if pads is not None:
            changed += _replace(module, node, pads, changed)
    changed += fold_constants(module, trained=True) + merge_norms(module)
    changed += _drop_dropout(module) + _drop_expansions(module)
    if not changed:
        return program
    module.graph.eliminate_dead_code()
    module.graph.lint()
    return replace(program, module=GraphModule(module, module.graph))  # holds only what the graph reads


def _drop_dropout(module: GraphModule) -> int:
    """Remove dropout in eval mode and count."""
    count = 0
    for node in list(module.graph.nodes):
        call = call_of(node)
        if call is not None and call.op in _DROPOUT and not call["train"]:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
            count += 1
    return count


def _drop_expansions(module: GraphModule) -> int:
    """Hand operators the tensor before its expansion where their other operand has the full shape; count."""
    count = 0
    for node in module.graph.nodes:
        if node.target not in _BROADCASTING:
            continue
        for number, other in ((0, 1), (1, 0)):
            operand = node.args[number]
            call = call_of(operand) if isinstance(operand, Node) else None
            if call is not None and call.op in _EXPANDING and _alike(operand, node.args[other]):
                node.update_arg(number, call.node.args[0])
                count += 1
                break
    return count


def _alike(first: object, second: object) -> bool:
    """Both are tensors of the same shape, symbolic sizes included."""
    shapes = [
        [str(size) for size in node.meta["val"].shape]
        for node in (first, second)
        if isinstance(node, Node) and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def _channel_pads(node: Node) -> tuple[int, int] | None:
    """(before, after) of a zero pad of dimension 1 of a 4-d tensor, else None."""
    if node.target is _aten.pad.default:
        mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
        value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
        if mode != "constant":
            return None
    elif node.target is _aten.constant_pad_nd.default:
        value = node.args[2] if len(node.args) > 2 else node.kwargs.get("value", 0)
    else:
        return None
    pads = node.args[1]
    if not isinstance(pads, list | tuple) or value not in (None, 0, 0.0):
        return None
    sizes = [p for p in pads if isinstance(p, int)]
    if len(sizes) != len(pads) or len(sizes) != 6 or any(sizes[:4]) or min(sizes[4:]) < 0:
        return None
    return sizes[4], sizes[5]


def _replace(module: GraphModule, pad: Node, pads: tuple[int, int], number: int) -> int:
    """Put the convolution in the place of the pad and the slices before it; 1 when done."""
    source, strides = _strided_source(pad.args[0])
    value = None if source is None else source.meta.get("val")
    if source is None or value is None or value.dim() != 4 or not value.is_floating_point():
        return 0
    channels = value.shape[1]
    if not isinstance(channels, int) or channels > WIDEST:
        return 0
    weight = torch.zeros(pads[0] + channels + pads[1], channels, 1, 1, dtype=value.dtype)
    weight[pads[0] + torch.arange(channels), torch.arange(channels)] = 1
    last, places = _taken(module, pad)
    if places is not None:
        weight = weight[places]
    name = f"shortcut_{number}"
    module.register_buffer(name, weight)
    with module.graph.inserting_before(pad):
        ones = module.graph.get_attr(name)
        conv = module.graph.call_function(_aten.conv2d.default, (source, ones, None, list(strides)))
    conv.meta = dict(last.meta)
    last.replace_all_uses_with(conv)
    return 1


def _taken(module: GraphModule, pad: Node) -> tuple[Node, torch.Tensor | None]:
    """What takes channels of the pad by constant numbers, if that is all that reads it, and these numbers."""
    users = list(pad.users)
    if len(users) == 1 and users[0].target is _aten.index_select.default and users[0].args[1] == 1:
        index = users[0].args[2]
        if isinstance(index, Node) and index.op == "get_attr":
            return users[0], attribute(module, str(index.target))
    return pad, None


def _strided_source(node: object) -> tuple[Node | None, tuple[int, int]]:
    """The tensor below a chain of whole-range slices, and their steps along height and width."""
    strides = {2: 1, 3: 1}
    while isinstance(node, Node) and node.target is _aten.slice.Tensor:
        given: list[object] = [*node.args[1:], *(0, None, None, 1)[len(node.args) - 1 :]]
        dim, start, end, step = given
        whole = start in (0, None) and (end is None or (isinstance(end, int) and end >= _END))
        if not whole or not isinstance(step, int) or (step != 1 and dim not in strides):
            return None, (1, 1)
        if isinstance(dim, int) and dim in strides:
            strides[dim] *= step
        node = node.args[0]
    return (node if isinstance(node, Node) else None), (strides[2], strides[3])
