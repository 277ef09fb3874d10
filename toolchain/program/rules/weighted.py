"""Operators that contract dimensions: convolutions, matrix products, attention, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from torch.fx import Node

from toolchain.program.axes import Axes, Call, Value
from toolchain.program.labels import Vector
from toolchain.program.rules.vanishing import vanishes
from toolchain.program.tracing import Rule, Tracing, freeze_all


def convolution(t: Tracing, call: Call) -> Value:
    """Given: x [n, c, ...], weight [o, c / groups, ...]. Result: [n, o, ...].

    With groups, channels are (group, index in the group): whole groups go on both sides, and an index goes in
    all groups at once.
    """
    if call["transposed"]:
        return transposed(t, call)
    if not isinstance(call["groups"], int):
        return freeze_all(t, call.node, "has as many groups as samples")
    x, weight, bias = _operands(t, call)
    channel = len(x) - len(weight) + 1
    groups = call["groups"]
    result = weight.labels[0]
    if groups == 1:
        t.tie(x.labels[channel], weight.labels[1], call)
    else:
        why = f"{call.place}: {groups} groups"
        source = t.labels.split(x.labels[channel], [groups, weight.shape[1]], why)
        target = t.labels.split(result, [groups, weight.shape[0] // groups], why)
        if weight.shape[1] > 1:
            t.tie(source[1], weight.labels[1], call)
        t.tie(source[0], target[0], call)
        t.facts[call.node] = {"groups": target[0]}
    return _filtered(t, call, x, weight, bias, channel, result)


def transposed(t: Tracing, call: Call) -> Value:
    """Given: x [n, c, ...], weight [c, o / groups, ...]. Result: [n, o, ...]."""
    x, weight, bias = _operands(t, call)
    channel = len(x) - len(weight) + 1
    groups = call["groups"]
    t.tie(x.labels[channel], weight.labels[0], call)
    result = weight.labels[1]
    if groups > 1:
        why = f"{call.place}: {groups} groups"
        source = t.labels.split(x.labels[channel], [groups, weight.shape[0] // groups], why)
        t.facts[call.node] = {"groups": source[0]}
        result = t.labels.merge([source[0], weight.labels[1]], [groups, weight.shape[1]])
    return _filtered(t, call, x, weight, bias, channel, result)


def _operands(t: Tracing, call: Call) -> tuple[Axes, Axes, Axes | None]:
    return t.axes(call["input"]), t.axes(call["weight"]), t.maybe(call["bias"])


def _filtered(
    t: Tracing, call: Call, x: Axes, weight: Axes, bias: Axes | None, channel: int, result: Vector
) -> Value:
    """The result of a convolution; kernel dimensions stay, and image dimensions that it looks along."""
    image = range(channel + 1, len(x))
    looks = [d for d in image if not _position_by_position(call, weight, d - channel - 1)]
    slides = [d for d in looks if _keeps_places(t, call, x, weight, d - channel - 1)]
    t.restrict(
        call, slides, x, f"{call.node.name} ({call.op}): slides over the channels, removed ones count as 0"
    )
    looks = [d for d in looks if d not in slides]
    t.freeze(x, looks, f"{call.place}: an image dimension of a convolution")
    t.freeze(weight, range(2, len(weight)), "kernel")
    if bias is not None:
        t.tie(result, bias.labels[0], call)
    return t.yields(
        call.node, {d: result if d == channel else v for d, v in enumerate(x.labels) if d not in looks}
    )


def _position_by_position(call: Call, weight: Axes, image_dim: int) -> bool:
    """Whether a position of the result along an image dimension reads that one position alone."""
    if weight.shape[2 + image_dim] != 1:
        return False
    for name, neutral in (("stride", (1,)), ("padding", (0, "same", "valid")), ("output_padding", (0, None))):
        given = call[name]
        each = tuple(given) if isinstance(given, list | tuple) else (given,)
        if each[image_dim if len(each) > 1 else 0] not in neutral:
            return False
    return True


def _keeps_places(t: Tracing, call: Call, x: Axes, weight: Axes, image_dim: int) -> bool:
    """Whether one filter goes over all positions of a dimension of channels, with a result for each (ECA)."""
    dim = len(x) - len(weight) + 2 + image_dim
    vector = x.labels[dim]
    if vector is None or call.op not in _CONVOLUTIONS or weight.shape[:2] != (1, 1):
        return False
    same = t.shape(call.node)[dim] == x.shape[dim] and weight.shape[2 + image_dim] % 2 == 1
    stride = call["stride"]
    several = isinstance(stride, list | tuple) and len(stride) > 1
    one = (stride[image_dim] if several else stride) in (1, [1], (1,))
    return same and one and bool(t.labels.roots(vector).any())


def linear(t: Tracing, call: Call) -> Value:
    """Given: x [..., i], weight [o, i]. Result: [..., o]."""
    x, weight, bias = _operands(t, call)
    t.tie(x.labels[-1], weight.labels[-1], call)
    result = weight.labels[0] if len(weight) == 2 else None
    if bias is not None and bias.shape:
        t.tie(result, bias.labels[-1], call)
    labels = dict(enumerate(x.labels[:-1]))
    if len(weight) == 2:
        labels[len(x) - 1] = result
    return t.yields(call.node, labels)


def contract(t: Tracing, call: Call, nodes: Sequence[Node], letters: Sequence[str], result: str) -> Value:
    """An einsum over labelled operands: a letter stands for one dimension throughout."""
    known: dict[str, Vector] = {}
    sizes: dict[str, int] = {}
    for axes, names in zip(map(t.axes, nodes), letters, strict=True):
        for letter, vector, size in zip(names, axes.labels, axes.shape, strict=True):
            if names.count(letter) > 1:
                return freeze_all(t, call.node)
            if size == 1:
                continue
            known[letter] = t.tie(known[letter], vector, call) if letter in sizes else vector
            sizes[letter] = size
    _restrict_sums(t, call, nodes, letters, {k: v for k, v in known.items() if k not in result})
    return t.yields(call.node, {d: known.get(letter) for d, letter in enumerate(result)})


def _restrict_sums(
    t: Tracing, call: Call, nodes: Sequence[Node], letters: Sequence[str], summed: Mapping[str, Vector]
) -> None:
    """Sums over removable dimensions are those of the kept channels; only zeros change nothing in them."""
    for letter, vector in summed.items():
        if vector is None or not t.labels.roots(vector).any():
            continue
        places = [
            (n, names.index(letter))
            for n, names in zip(nodes, letters, strict=True)
            if letter in names and t.axes(n).labels[names.index(letter)] is not None
        ]
        if places and not any(vanishes(t, n, dim) for n, dim in places):
            node, dim = places[0]
            own = t.contracted.setdefault(call.node, {})
            own[node] = (*own.get(node, ()), dim)
            t.notes.append((vector, f"{call.node.name} ({call.op}): computed over the kept channels"))


def matmul(t: Tracing, call: Call) -> Value:
    """Given: a [..., n, k], b [..., k, m]. Result: [..., n, m]; the leading dimensions broadcast."""
    operands = ("self", "other", "mat", "mat1", "mat2", "vec", "tensor", "batch1", "batch2")
    names = [n for n in call.positions if n in operands]
    nodes = [call[n] for n in names[-2:]]
    first, second = map(t.axes, nodes)
    batch = "abcdefg"
    one = (batch[-(len(first) - 2) :] if len(first) > 2 else "") + ("nk" if len(first) > 1 else "k")
    two = (batch[-(len(second) - 2) :] if len(second) > 2 else "") + ("km" if len(second) > 1 else "k")
    lead = max(one[:-2], two[:-2], key=len)
    tail = ("n" if len(first) > 1 else "") + ("m" if len(second) > 1 else "")
    value = contract(t, call, nodes, [one, two], lead + tail)
    added = t.maybe(call["self"]) if call.op in ("addmm", "baddbmm", "addmv") else None
    if added is not None and isinstance(value, Axes):
        for d in range(1, len(added) + 1):
            if added.shape[-d] == value.shape[-d] and value.shape[-d] != 1:
                t.tie(value.labels[-d], added.labels[-d], call)
    return value


def tensordot(t: Tracing, call: Call) -> Value:
    """Given: a, b, and the dimensions of each that are multiplied. Result: the others of a, then of b."""
    a, b = t.axes(call["self"]), t.axes(call["other"])
    names = [list("abcdefgh"[: len(a)]), list("ABCDEFGH"[: len(b)])]
    for first, second in zip(call["dims_self"], call["dims_other"], strict=True):
        names[1][b.dim(second)] = names[0][a.dim(first)]
    both = set(names[0]) & set(names[1])
    result = "".join(letter for name in names for letter in name if letter not in both)
    return contract(t, call, [call["self"], call["other"]], ["".join(name) for name in names], result)


def bilinear(t: Tracing, call: Call) -> Value:
    """Given: x [..., i], y [..., j], weight [o, i, j]. Result: [..., o]."""
    nodes = [call[name] for name in ("input1", "input2", "weight")]
    x, _, weight = map(t.axes, nodes)
    lead = "abcdefg"[: len(x) - 1]
    value = contract(t, call, nodes, [f"{lead}i", f"{lead}j", "oij"], f"{lead}o")
    bias = t.maybe(call["bias"])
    if bias is not None:
        t.tie(weight.labels[0], bias.labels[0], call)
    return value


def deformable(t: Tracing, call: Call) -> Value:
    """A convolution that reads at places of its own; each run of channels with an offset map of its own."""
    x, offset, mask = t.axes(call["input"]), t.axes(call["offset"]), t.maybe(call["mask"])
    for axes in (offset, mask):
        t.freeze(axes, range(len(axes or ())), f"{call.place}: places to read at")
    runs, weight = call["offset_groups"], t.axes(call["weight"])
    if call["groups"] > 1 or runs > 1:
        t.freeze(x, [1], f"{call.place}: groups of a deformable convolution")
        t.freeze(weight, [0, 1], f"{call.place}: groups of a deformable convolution")
    else:
        t.tie(x.labels[1], weight.labels[1], call)
    return _filtered(t, call, x, weight, t.maybe(call["bias"]), 1, weight.labels[0])


def weight_norm(t: Tracing, call: Call) -> Value:
    """Given: direction v, length g [1, .., n, .., 1]. Result: g * v / norm(v) over all other dims.

    Dimension -1 stands for none: one norm for the whole weight.
    """
    v, g = t.axes(call["v"]), t.axes(call["g"])
    dim = v.dim(call["dim"]) if call["dim"] != -1 else -1
    if dim >= 0:
        t.tie(v.labels[dim], g.labels[dim], call)
    others = [d for d in range(len(v)) if d != dim]
    t.restrict(call, others, v, f"{call.node.name} ({call.op}): norm of the kept inputs' weights")
    t.restricted[call.node] = tuple(range(len(v)))
    return (v, None) if isinstance(call.node.meta["val"], list | tuple) else v


def einsum(t: Tracing, call: Call) -> Value:
    """Any einsum without repeated letters in one operand; `...` stands for leading dimensions."""
    operands = [t.axes(node) for node in call["tensors"]]
    letters, result = letters_of(call, operands)
    return contract(t, call, call["tensors"], letters, result)


def letters_of(call: Call, operands: Sequence[Axes]) -> tuple[list[str], str]:
    """A letter for each dimension of the operands, and of the result; digits for what `...` stands for."""
    equation = str(call["equation"]).replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    width = max((len(o) - len(n.replace("...", "")) for o, n in zip(operands, terms, strict=True)), default=0)
    dots = "0123456789"[10 - width :] if width else ""
    letters = []
    for axes, names in zip(operands, terms, strict=True):
        own = len(axes) - len(names.replace("...", ""))
        letters.append(names.replace("...", dots[len(dots) - own :] if own else ""))
    if "->" not in equation:
        written = "".join(terms).replace(".", "")
        once = sorted(c for c in set(written) if written.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    return letters, right.replace("...", dots)


def attention(t: Tracing, call: Call) -> Value:
    """Given: q [..., h, l, e], k [..., h, s, e], v [..., h, s, f]. Result: [..., h, l, f].

    Heads go together in all three; with grouped queries, a key's head goes with its run of query heads.
    """
    q, k, v = (t.axes(call[name]) for name in ("query", "key", "value"))
    t.tie(q.labels[-1], k.labels[-1], call)
    t.tie(k.labels[-2], v.labels[-2], call)
    t.freeze(k, [len(k) - 2], f"{call.place}: softmax over this dimension")
    t.freeze(q, [len(q) - 2], f"{call.place}: rows of attention")
    lead = list(q.labels[:-2])
    for d in range(len(q) - 2):
        at = d - len(q)
        if len(k) >= -at and k.shape[at] == q.shape[d] and v.shape[at] == q.shape[d]:
            lead[d] = t.tie(t.tie(q.labels[d], k.labels[at], call), v.labels[at], call)
        elif len(k) >= -at and k.shape[at] > 1:
            t.tie(k.labels[at], v.labels[at], call)
            runs = [k.shape[at], q.shape[d] // k.shape[at]]
            parts = t.labels.split(q.labels[d], runs, f"{call.place}: grouped queries")
            t.tie(parts[0], k.labels[at], call)
    mask = t.maybe(call["attn_mask"])
    if mask is not None:
        for d in range(1, len(mask) + 1):
            if mask.shape[-d] != 1:
                own = (None, None, *lead[::-1])[d - 1]
                t.tie(mask.labels[-d], own, call)
    sums = {"e": q.labels[-1]}
    _restrict_sums(t, call, [call["query"], call["key"]], [f"{'.' * (len(a) - 1)}e" for a in (q, k)], sums)
    return t.yields(call.node, {**dict(enumerate(lead)), len(q) - 1: v.labels[-1]})


_CONVOLUTIONS: Final = ["conv1d", "conv2d", "conv3d", "convolution", "_convolution"]
RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_CONVOLUTIONS, convolution),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], transposed),
    **dict.fromkeys(["matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "dot", "vdot", "addmv"], matmul),
    **dict.fromkeys(["_weight_norm", "_weight_norm_interface"], weight_norm),
    "linear": linear,
    "einsum": einsum,
    "tensordot": tensordot,
    "bilinear": bilinear,
    "deform_conv2d": deformable,
    "scaled_dot_product_attention": attention,
}
