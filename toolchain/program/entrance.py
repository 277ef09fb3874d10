"""Where the input enters a network: which of it may leave, and the network without what has left.

Positions of an image's channels, or of a vector's features, are labelled like any other channel and followed
to the weights that listen to them (`program/channels.py`): a block of weights that is zero leads back to the
input that nobody listens to, and both go. A network whose first operator flattens an image takes its pixels
as features. Pixels of an image that stays one cannot leave one by one: they are cropped, or set to zero.
Source: Hubens et al., joint pruning of weights and input data: sparsity on blocks of weights, traced back to
input features, both removed, retrained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from toolchain.errors import InputError, UnsupportedError
from toolchain.input_view import InputView
from toolchain.program.axes import call_of
from toolchain.program.capture import captured_again, example_inputs, switch
from toolchain.program.channels import Analysis, examine_open
from toolchain.program.gating import Site, sites_of
from toolchain.program.labels import FIXED
from toolchain.program.resize import resized
from toolchain.program.rewrite import applied
from toolchain.program.signature import input_specs
from toolchain.values import Program

MASK: Final = "edgefit_input_mask"
"""The parameter [1, 1, height, width] that multiplies the images of a `masked` program."""
SQUARES: Final = 8
"""Squares that fit into an image's shorter side at least; their sides are powers of two."""
PREFIX: Final = "input: "
_FLAT: Final = ("flatten", "view", "reshape", "_unsafe_view")
_aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Entrance:
    """The removable parts of a network's only input, whose samples are [`shape`].

    `sites` have a gate for every part of the input that may leave the signature, on the weights that listen
    to it; `positions[site][u]` are the channels or features of part u (several where the network ties them).
    Where `flat`, they are elements of the image, row by row. `block` is the side of the squares in which
    pixels of an image are judged; 0: there are none. `stays` says why the rest of the channels or features
    stay.
    """

    shape: tuple[int, ...]
    flat: bool
    sites: tuple[Site, ...]
    positions: Mapping[str, tuple[tuple[int, ...], ...]]
    block: int
    stays: str = ""

    @property
    def squares(self) -> tuple[int, int]:
        """How many squares high and wide an image is; the last ones may be smaller."""
        height, width = self.shape[1:]
        return math.ceil(height / self.block), math.ceil(width / self.block)


def entrance(program: Program) -> Entrance:
    """What may leave the program's input.

    Raises:
        UnsupportedError: several inputs, neither images nor vectors of floats, or nothing may leave.
    """
    shape = _shape(program)
    flat = _flattened(program) if len(shape) == 3 else None
    seen = program if flat is None else flat
    analysis = examine_open(seen)
    units, reason = _units(seen, analysis)
    sites = tuple(
        replace(site, name=PREFIX + site.name) for site in sites_of(seen, analysis) if site.name in units
    )
    block = 0 if len(shape) == 1 or flat is not None else _block(min(shape[1:]))
    if not sites and not block:
        raise UnsupportedError(f"nothing of the network's input can be left out: {reason}")
    return Entrance(
        shape=shape,
        flat=flat is not None,
        sites=sites,
        positions={PREFIX + name: places for name, places in units.items()},
        block=block,
        stays=reason,
    )


def narrowed(program: Program, view: InputView) -> Program:
    """`program` for what the view leaves of its input: weights that listened to the rest are gone.

    With its channels or features it computes what `program` does where no weight listens to the others. A
    crop is more: the network captured at that size, which pads at other places; parameters are shared.

    Raises:
        InputError: a view of another input, or without something that has to stay.
        UnsupportedError: the network does not allow the crop's size; names operator and node.
    """
    if _shape(program) != view.shape:
        raise InputError(f"the plan's input is {list(view.shape)}, the network's {list(_shape(program))}")
    if view.flat:
        flat = _flattened(program)
        if flat is None:
            raise InputError("the plan takes the input's elements one by one, and the network does not")
        program = flat
    if view.kept is not None:
        program = _without(program, view.kept, view.count)
    return program if view.crop is None else resized(program, view.size)


def _without(program: Program, kept: tuple[int, ...], count: int) -> Program:
    analysis = examine_open(program)
    units, _ = _units(program, analysis)
    keep = {
        name: tuple(u for u, places in enumerate(parts) if set(kept).intersection(places))
        for name, parts in units.items()
    }
    going = {p for n, parts in units.items() for u, ps in enumerate(parts) if u not in keep[n] for p in ps}
    least = {group.name: group.minimum for group in analysis.channels.groups}
    short = any(len(found) < least[name] for name, found in keep.items())
    if short or list(kept) != [place for place in range(count) if place not in going]:
        raise InputError("the plan leaves out parts of the input that this network cannot do without")
    found = applied(program, analysis, keep)
    return replace(found, inputs=input_specs(found.module))


def _shape(program: Program) -> tuple[int, ...]:
    """The shape of a sample of the program's only input.

    Raises:
        UnsupportedError: it has several, or another kind of input.
    """
    spec = program.inputs[0]
    shape = tuple(size for size in spec.shape[1:] if size is not None)
    plain = spec.dtype.startswith(("float", "bfloat")) and len(shape) == len(spec.shape) - 1
    if len(program.inputs) != 1 or not plain or len(shape) not in (1, 3):
        what = ", ".join(f"{s.name} {s.dtype} with {len(s.shape)} dimensions" for s in program.inputs)
        raise UnsupportedError(
            f"parts of the input are left out of images [batch, channels, height, width] or vectors "
            f"[batch, features] of floats; the network takes {what}"
        )
    return shape


def _block(side: int) -> int:
    return 1 << int(math.log2(max(side / SQUARES, 1)))


def _units(program: Program, analysis: Analysis) -> tuple[dict[str, tuple[tuple[int, ...], ...]], str]:
    """For every group that is all input: the positions of each of its units. And why others stay."""
    given = _input(program.module)
    vector = analysis.tracing.axes(given).labels[1]
    if vector is None:
        return {}, "it is one channel or feature alone"
    labels = analysis.tracing.labels
    roots = labels.roots(vector)
    found: dict[str, dict[int, list[int]]] = {}
    reasons = dict.fromkeys(labels.reason(int(vector[i])) for i in (roots == FIXED).nonzero()[0])
    for position, root in enumerate(roots.tolist()):
        number = int(analysis.group_of[root]) if root != FIXED else -1
        if number >= 0:
            group = analysis.channels.groups[number]
            found.setdefault(group.name, {}).setdefault(int(analysis.unit_of[root]), []).append(position)
    units: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, parts in found.items():
        group = analysis.channels.group(name)
        if group.note or len(parts) < group.size:
            reasons[group.note or f"{name} has other channels too"] = None
        else:
            units[name] = tuple(tuple(parts[u]) for u in range(group.size))
    reason = "; ".join(reason for reason in reasons if reason)
    return units, reason or ("" if units else "no weight listens to its parts alone")


def _input(module: GraphModule) -> Node:
    found: Node = next(node for node in module.graph.nodes if node.op == "placeholder")
    return found


def _flattened(program: Program) -> Program | None:
    """The program that takes its images flattened, if flattening them is all it does with them; else None."""
    shape = _shape(program)
    module = copy.deepcopy(program.module)
    given = _input(module)
    users = [node for node in given.users if (call := call_of(node)) is None or call.op != "sym_size"]
    call = call_of(users[0]) if len(users) == 1 else None
    flat = call is not None and call.op in _FLAT and len(users[0].meta["val"].shape) == 2
    if not flat or users[0].meta["val"].shape[1] != math.prod(shape):
        return None
    users[0].replace_all_uses_with(given)
    module.graph.erase_node(users[0])
    module.recompile()
    (example,) = example_inputs(program, 2)
    return captured_again(program, module, (example.flatten(1),))


def masked(program: Program) -> Program:
    """A copy of the program that first multiplies its images by the parameter `MASK`, all ones."""
    module = copy.deepcopy(program.module)
    given = _input(module)
    height, width = _shape(program)[1:]
    module.register_parameter(MASK, nn.Parameter(torch.ones(1, 1, height, width)))
    with module.graph.inserting_after(given):
        mask = module.graph.get_attr(MASK)
    with module.graph.inserting_after(mask):
        product = module.graph.call_function(_aten.mul.Tensor, (given, mask))
    given.replace_all_uses_with(product, delete_user_cb=lambda user: user is not product)
    mask.meta["val"] = given.meta["val"].new_empty((1, 1, height, width))
    product.meta = dict(given.meta)
    module.recompile()
    return replace(program, module=module)


def unmasked(program: Program) -> Program:
    """A copy of a `masked` program without the mask."""
    module = copy.deepcopy(program.module)
    mask = next(node for node in module.graph.nodes if node.op == "get_attr" and node.target == MASK)
    (product,) = mask.users
    product.replace_all_uses_with(_input(module))
    module.graph.erase_node(product)
    module.graph.erase_node(mask)
    delattr(module, MASK)
    module.recompile()
    return replace(program, module=module)


def lit(view: InputView) -> Tensor:
    """What images that were cropped are multiplied by [height, width]: 0 in blank squares, else 1."""
    top, left = (0, 0) if view.crop is None else view.crop[:2]
    found = torch.ones(view.shape[1:])
    for row, column in view.blank:
        rows, columns = row * view.block, column * view.block
        found[rows : rows + view.block, columns : columns + view.block] = 0
    height, width = view.size
    return found[top : top + height, left : left + width]


def seeing_whole(program: Program, view: InputView) -> Program:
    """A copy of the `narrowed` program that takes the whole input and first does with it what the view says.

    Parameters keep their names, so that the state of one fits the other.
    """
    module = switch(program, training=False)
    given = _input(module)
    small = given.meta["val"]
    steps: list[tuple[Any, tuple[Any, ...]]] = []
    if view.flat:
        steps.append((_aten.flatten.using_ints, (1,)))
    if view.kept is not None:
        steps.append((_aten.index_select.default, (1, _constant(module, "kept", torch.tensor(view.kept)))))
    if view.crop is not None:
        top, left, height, width = view.crop
        steps += [(_aten.slice.Tensor, (2, top, top + height)), (_aten.slice.Tensor, (3, left, left + width))]
    if view.blank:
        steps.append((_aten.mul.Tensor, (_constant(module, "lit", lit(view)),)))
    whole = small.new_empty((small.shape[0], *view.shape))
    last, value, front = given, whole, set[Node]()
    for target, more in steps:
        arguments = tuple(_read(module, given, m) if isinstance(m, str) else m for m in more)
        front.update(a for a in arguments if isinstance(a, Node))
        with module.graph.inserting_after(max(front | {last}, key=list(module.graph.nodes).index)):
            last = module.graph.call_function(target, (last, *arguments))
        value = target(value, *(a.meta["val"] if isinstance(a, Node) else a for a in arguments))
        last.meta = {**given.meta, "val": value}
        front.add(last)
    if last is not given:
        given.replace_all_uses_with(last, delete_user_cb=lambda user: user not in front)
    given.meta = {**given.meta, "val": whole}
    module.recompile()
    (spec,) = program.inputs
    return replace(program, module=module, inputs=(replace(spec, shape=(spec.shape[0], *view.shape)),))


def _constant(module: GraphModule, name: str, value: Tensor) -> str:
    """A buffer that is no part of the module's state."""
    module.register_buffer(f"edgefit_input_{name}", value, persistent=False)
    return f"edgefit_input_{name}"


def _read(module: GraphModule, given: Node, name: str) -> Node:
    with module.graph.inserting_after(given):
        node = module.graph.get_attr(name)
    value = module.get_buffer(name)
    node.meta["val"] = given.meta["val"].new_empty(tuple(value.shape), dtype=value.dtype)
    return node


__all__ = ["MASK", "Entrance", "entrance", "lit", "masked", "narrowed", "seeing_whole", "unmasked"]
