"""A program for images of another size, with the same trained parameters; refused where that is not certain.

Given:  a graph whose constants were taken at one image size
Result: the same operators captured at another; reshapes and global pools follow the size

A captured graph has forgotten which of its numbers came from the image's size. Every operator that sees a
tensor whose shape changes must therefore be known to mean the same at any size, or hold its numbers in a way
that leaves one reading only. Everything else is refused by name, as is what cannot run at the new size.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from toolchain.errors import InputError, UnsupportedError
from toolchain.foreign import first_line
from toolchain.program.axes import Call, call_of
from toolchain.program.capture import captured_again, example_inputs, switch
from toolchain.values import Program

Shape = tuple[int, ...]
BATCH: Final = 3
"""Samples that are run to learn the shapes; few networks have a dimension of 3 besides the colours."""
LARGEST_STEP, STEPS = 32, 7
"""Sizes are multiples of the largest power of two, 32 at most, that goes seven times into the image."""
_END: Final = 2**31
# fmt: off
_FREE: Final = frozenset((
    "hardswish", "mish", "prelu", "dropout", "feature_dropout", "alpha_dropout", "contiguous",
    "clone", "to", "_to_copy", "detach", "type_as", "zeros_like", "ones_like", "full_like",
    "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum",
    "scaled_dot_product_attention", "batch_norm", "instance_norm", "group_norm", "layer_norm",
    "rms_norm", "softmax", "log_softmax", "mean", "sum", "amax", "amin", "var", "std", "var_mean",
    "linalg_vector_norm", "adaptive_avg_pool2d", "adaptive_max_pool2d", "flatten", "permute",
    "transpose", "t", "movedim", "unsqueeze", "squeeze", "cat", "stack", "expand_as", "glu",
    "chunk", "flip", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "sym_size",
))
# fmt: on
"""Operators besides elementwise ones whose numbers never are sizes of the image."""


def smaller_sizes(size: tuple[int, int], least_share: float) -> tuple[tuple[int, int], ...]:
    """(height, width) below `size`, largest first, of about the same shape; sides >= `least_share` of its."""
    short = min(size)
    step = min(LARGEST_STEP, 2 ** int(math.log2(max(short / STEPS, 1))))
    first = (short - 1) // step * step
    shares = [s / short for s in range(first, 0, -step) if s >= least_share * short]
    return tuple((_multiple(size[0] * share, step), _multiple(size[1] * share, step)) for share in shares)


def _multiple(side: float, step: int) -> int:
    return max(1, round(side / step)) * step


def image_size(program: Program) -> tuple[int, int]:
    """(height, width) of the program's only input.

    Raises:
        UnsupportedError: it has another kind of input.
    """
    shape = program.inputs[0].shape
    if (
        len(program.inputs) != 1
        or len(shape) != 4
        or not program.inputs[0].dtype.startswith(("float", "bfloat"))
    ):
        raise UnsupportedError("the network does not take one image [batch, channels, height, width]")
    height, width = shape[2:]
    assert height is not None, "only the batch of a captured program is open"
    assert width is not None
    return height, width


def require_smaller(own: tuple[int, int], size: tuple[int, int]) -> None:
    """Refuse a size that is not below a network's own.

    Raises:
        InputError: with both sizes.
    """
    if size == own or any(new > old or new < 1 for new, old in zip(size, own, strict=True)):
        raise InputError(f"{_text(size)} is not smaller than the network's input {_text(own)}")


def resized(program: Program, size: tuple[int, int]) -> Program:
    """`program` for images of `size` (height, width); parameters are shared.

    Raises:
        InputError: not an image size below the program's own.
        UnsupportedError: names the operator and the node that do not allow another size, and why.
    """
    require_smaller(image_size(program), size)
    (example,) = example_inputs(program, BATCH)
    smaller = example[:, :, : size[0], : size[1]].contiguous()
    before = _Shapes(program.module)
    fitted = GraphModule(program.module, copy.deepcopy(program.module.graph))
    pairs = dict(zip(fitted.graph.nodes, program.module.graph.nodes, strict=True))
    with torch.no_grad():
        before.run(example)
        fitting = _Fitting(fitted, {node: before.shapes[old] for node, old in pairs.items()})
        fitting.run(smaller)
    fitted.recompile()
    return captured_again(program, fitted, (smaller,))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


class _Shapes(Interpreter):
    """Runs a graph and remembers the shape of everything; of several tensors those of all, of others None."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[Node, Any] = {}
        self.extra_traceback = False

    def run_node(self, n: Node) -> Any:
        """The node's value."""
        result = super().run_node(n)
        self.shapes[n] = _shapes_of(result)
        return result


def _shapes_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(_shapes_of(v) for v in value) if isinstance(value, list | tuple) else None


class _Fitting(_Shapes):
    """Runs a graph on smaller images and writes its nodes' new numbers into it; refuses what is uncertain."""

    def __init__(self, module: GraphModule, before: Mapping[Node, Any]) -> None:
        super().__init__(module)
        self._before = before

    def run_node(self, n: Node) -> Any:
        """The node's value at the new size.

        Raises:
            UnsupportedError: the node does not allow another size.
        """
        seen = [i for i in n.all_input_nodes if self.shapes.get(i) != self._before.get(i)]
        if n.op == "output":
            if seen:
                raise _refused(seen[0], "the network's output would change its size")
            return super().run_node(n)
        call = call_of(n)
        expected = self._fit(n, call) if seen else None
        try:
            result = super().run_node(n)
        except (RuntimeError, ValueError, IndexError) as error:
            raise _refused(n, f"it does not run at that size: {first_line(error)}") from error
        if seen and isinstance(self.shapes[n], tuple) and n.target is not operator.getitem:
            self._compare(n, expected)
        return result

    def _fit(self, n: Node, call: Call | None) -> Shape | None:
        """Write the numbers of the new size into the node; gives the shape it must then have, if known."""
        if call is None:
            if n.target is operator.getitem:
                return None
            raise _refused(n, "it is not known to mean the same at another size")
        if call.op in ("avg_pool2d", "max_pool2d"):
            self._fit_pool(call)
            return None
        if call.op in _FITS:
            return _FITS[call.op](call, *self._shapes_of_first(call))
        if call.op not in _FREE and torch.Tag.pointwise not in n.target.tags:  # type: ignore[union-attr]
            raise _refused(n, "it is not known to mean the same at another size")
        return None

    def _shapes_of_first(self, call: Call) -> tuple[Shape, Shape, Shape]:
        """Shapes of the first tensor before and now, and of the result before."""
        source = call.node.all_input_nodes[0]
        return self._before[source], self.shapes[source], self._before[call.node]

    def _fit_pool(self, call: Call) -> None:
        """A pool over everything stays one over everything; smaller windows are what they are."""
        before, now, _ = self._shapes_of_first(call)
        if _pair(call["kernel_size"]) == before[-2:] and not any(_pair(call["padding"])):
            call.put("kernel_size", list(now[-2:]))

    def _compare(self, n: Node, expected: Shape | None) -> None:
        """Refuse a result of another shape than expected, or one that came about by broadcasting anew."""
        before, now = self._before[n], self.shapes[n]
        if len(before) != len(now) or (expected is not None and now != expected):
            raise _refused(n, f"its result would be {list(now)} instead of {list(before)}")
        if torch.Tag.pointwise not in getattr(n.target, "tags", ()):
            return
        for source in n.all_input_nodes:
            old, new = self._before[source], self.shapes[source]
            for dim in range(1, len(old or ()) + 1):
                if old[-dim] == before[-dim] and new[-dim] != now[-dim]:
                    raise _refused(n, f"it would spread {list(new)} over {list(now)}")


def _pair(value: Any) -> Shape:
    values = [value] if isinstance(value, int) else list(value or [0])
    return tuple(values * 2 if len(values) == 1 else values)


def _refused(node: Node, why: str) -> UnsupportedError:
    target = str(node.target).removeprefix("aten.") if node.op == "call_function" else node.op
    return UnsupportedError(f"the input keeps its size: {target} (node {node.name}): {why}")


def _fit_view(call: Call, before: Shape, now: Shape, result: Shape) -> Shape:
    """Axes that are kept or merged follow the size; a size taken apart has more than one reading."""
    expected = regrouped(before, result, now)
    if expected is None:
        raise _refused(call.node, f"{list(before)} is taken apart into {list(result)}")
    name = "size" if "size" in call.positions else "shape"
    given = call[name]
    call.put(name, [e if isinstance(g, int) and g >= 0 else g for g, e in zip(given, expected, strict=True)])
    return expected


def regrouped(before: Shape, result: Shape, now: Shape) -> Shape | None:
    """The shape that a reshape of `before` into `result` makes of `now`; None where it is not determined.

    Both shapes are cut into the shortest runs of equal products: a reshape moves elements within such runs
    only. A run whose sizes change must end in one dimension, besides those of 1.
    """
    found: list[int] = []
    i = j = 0
    while i < len(before) and j < len(result):
        start, first, left, right = i, j, before[i], result[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right and i < len(before):
                left, i = left * before[i], i + 1
            elif right < left and j < len(result):
                right, j = right * result[j], j + 1
            else:
                return None
        parts = list(result[first:j])
        if before[start:i] != now[start:i]:
            wide = [k for k, part in enumerate(parts) if part != 1] or [0]
            if len(wide) > 1:
                return None
            parts[wide[0]] = math.prod(now[start:i])
        found += parts
    return None if before[i:] != now[i:] else (*found, *result[j:])


def _fit_expand(call: Call, before: Shape, now: Shape, result: Shape) -> Shape:
    """Dimensions that were there keep what the input has; new ones and repeated ones stay."""
    lead = len(result) - len(before)
    expected = list(result)
    for dim, (old, new) in enumerate(zip(before, now, strict=True)):
        if old != new:
            expected[lead + dim] = new
    given = call["size"]
    call.put(
        "size", [e if isinstance(g, int) and g >= 0 else g for g, e in zip(given, expected, strict=True)]
    )
    return tuple(expected)


def _fit_part(call: Call, before: Shape, now: Shape, _: Shape) -> None:
    """Parts of a dimension that stays; of one that changes its first or last place, or all but these."""
    dim = call["dim"] or 0
    if before[dim] == now[dim]:
        return
    start, end = call["start"], call["end"]
    ends = call.op == "select" and call["index"] in (0, -1)
    whole = call.op == "slice" and start in (None, 0, 1) and (end in (None, -1) or end >= _END)
    if not ends and not whole:
        raise _refused(call.node, "it takes a part at fixed places of the image")


def _fit_pad(call: Call, before: Shape, now: Shape, _: Shape) -> None:
    """Equal padding on both sides; unequal padding often depends on the size."""
    pads = list(call["pad"])
    for number in range(len(pads) // 2):
        dim = len(before) - 1 - number
        if before[dim] != now[dim] and pads[2 * number] != pads[2 * number + 1]:
            raise _refused(call.node, f"padding {pads} may depend on the size")


def _fit_upsample(call: Call, *_: Shape) -> None:
    """By a factor, not to a size."""
    if call["scale_factors"] is None or call["output_size"] is not None:
        raise _refused(call.node, "it enlarges to a fixed size")


_FITS: Final[Mapping[str, Callable[[Call, Shape, Shape, Shape], Shape | None]]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _fit_view),
    "expand": _fit_expand,
    **dict.fromkeys(("slice", "select"), _fit_part),
    **dict.fromkeys(("narrow", "split", "split_with_sizes", "unbind", "index_select"), _fit_part),
    **dict.fromkeys(("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _fit_pad),
    **dict.fromkeys(
        ("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_nearest_exact2d"),
        _fit_upsample,
    ),
}


def with_state(program: Program, trained: GraphModule) -> Program:
    """A copy of `program` with the parameters and buffers of `trained`, which has them by the same names.

    `trained` may have more: constants of what it does with its input first.
    """
    module, state = switch(program, training=False), trained.state_dict()
    module.load_state_dict({name: state[name] for name in module.state_dict()})
    return replace(program, module=module)


def fronted(program: Program, size: tuple[int, int]) -> Program:
    """A copy of `program` that first reduces images of `size` to its own: bilinear, antialiased.

    Parameters keep their names, so that the state of one fits the other.
    """
    own = image_size(program)
    module = switch(program, training=False)
    given = next(node for node in module.graph.nodes if node.op == "placeholder")
    with module.graph.inserting_after(given):
        reduced = module.graph.call_function(
            torch.ops.aten._upsample_bilinear2d_aa.default, (given, list(own), False, None, None)
        )
    given.replace_all_uses_with(reduced, delete_user_cb=lambda user: user is not reduced)
    small = given.meta["val"]
    reduced.meta = dict(given.meta)
    given.meta = {**given.meta, "val": small.new_empty((*small.shape[:2], *size))}
    module.recompile()
    (spec,) = program.inputs
    return replace(program, module=module, inputs=(replace(spec, shape=(*spec.shape[:2], *size)),))
