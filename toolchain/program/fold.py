"""Simplifications of a freshly captured graph that change no value, gradient or statistic.

Given:  constants computed inside forward (masks, ranges, index tables), aliases, checks of types and shapes,
        regions under `no_grad`
Result: constants as buffers, no aliases, no checks, the regions' operators in line and detached, squeezed
        dimensions by number
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from toolchain.program.aliasing import keep_copies
from toolchain.program.axes import attribute, call_of
from toolchain.program.unpack import unpack

LARGEST: Final = 2**24
"""Elements of the largest constant that is stored instead of computed."""
LARGEST_COPY: Final = 2**20
"""Elements of the largest constant that may be stored beside the parameter that it comes from."""
_aten = torch.ops.aten
_ALIASES: Final = ("alias", "lift_fresh_copy", "lift_fresh")
_NEW: Final = ("new_zeros", "new_ones", "new_full")
_CHECKS: Final = (
    "_assert_tensor_metadata",
    "_assert_async",
    "_assert_scalar",
    "sym_constrain_range_for_size",
)


def fold(module: GraphModule) -> None:
    """Simplify in place; the graph was just made and is nobody else's."""
    _inline_regions(module)
    for node in list(module.graph.nodes):
        call = call_of(node)
        if call is not None and call.op in _CHECKS:
            module.graph.erase_node(node)
    fold_constants(module)
    for node in list(module.graph.nodes):
        call = call_of(node)
        if call is not None and call.op in _ALIASES:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    _name_squeezed(module)
    unpack(module)
    keep_copies(module)
    _drop_dead(module)
    module.graph.lint()
    module.recompile()


def _name_squeezed(module: GraphModule) -> None:
    """Given: squeeze(x), or of dimensions that can be 1 by chance. Result: squeeze(x, those always 1).

    So a batch of 1 stays a dimension, as batches of any other size do, and a width that is cut to 1 too.
    """
    for node in module.graph.nodes:
        call = call_of(node)
        if call is None or call.op != "squeeze":
            continue
        sizes = call["self"].meta["val"].shape
        ones = [d for d, size in enumerate(sizes) if isinstance(size, int) and size == 1]
        if call["dim"] is not None:
            asked = [call["dim"]] if isinstance(call["dim"], int) else call["dim"]
            asked = [d % max(len(sizes), 1) for d in asked]
            if set(asked) <= set(ones):
                continue
            ones = [d for d in ones if d in asked]
        node.target, node.args, node.kwargs = _aten.squeeze.dims, (call["self"], ones), {}


def _drop_dead(module: GraphModule) -> None:
    """Unused nodes without effect; the parameters that were read stay registered."""
    for node in reversed(list(module.graph.nodes)):
        call = call_of(node)
        harmless = node.op == "get_attr" or node.target is operator.getitem
        if call is not None:
            harmless = (
                not node.target._schema.is_mutable
                and torch.Tag.nondeterministic_seeded not in node.target.tags
            )
        if harmless and not node.users:
            module.graph.erase_node(node)


def _inline_regions(module: GraphModule) -> None:
    """Regions under `no_grad` or with autocast off: their bodies in line, detached under `no_grad`."""
    for node in list(module.graph.nodes):
        region = _region(node)
        if region is None:
            continue
        name, arguments, detached = region
        body = module.get_submodule(name)
        assert isinstance(body, GraphModule)
        results = _copied_in_line(module.graph, node, body, arguments)
        if detached:
            results = [_detached(module.graph, node, r) for r in results]
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(results[user.args[1]])
            module.graph.erase_node(user)
        module.graph.erase_node(node)


def _region(node: Node) -> tuple[str, list[Any], bool] | None:
    """(name of the body, its arguments, whether no gradient passes) of a region that can be written in line.

    `wrap_with_set_grad_enabled(flag, body, *args)` or
    `wrap_with_autocast(device, dtype, flag, cache, body, *args)`; autocast that is on changes what the
    operators inside compute, and stays.
    """
    name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
    if name == "wrap_with_set_grad_enabled" and isinstance(node.args[1], Node):
        return str(node.args[1].target), list(node.args[2:]), not node.args[0]
    if name == "wrap_with_autocast" and not node.args[2] and isinstance(node.args[4], Node):
        return str(node.args[4].target), list(node.args[5:]), False
    return None


def _copied_in_line(graph: Graph, before: Node, body: GraphModule, arguments: list[Any]) -> list[Any]:
    known: dict[Node, Any] = {}
    given = iter(arguments)
    with graph.inserting_before(before):
        for inner in body.graph.nodes:
            if inner.op == "placeholder":
                known[inner] = next(given)
            elif inner.op == "output":
                result = inner.args[0]
                several = list(result) if isinstance(result, list | tuple) else [result]
                return [known[r] if isinstance(r, Node) else r for r in several]
            else:
                known[inner] = graph.node_copy(inner, lambda n: known[n])
    return []


def _detached(graph: Graph, before: Node, value: Any) -> Any:
    if not isinstance(value, Node) or not isinstance(value.meta.get("val"), Tensor):
        return value
    with graph.inserting_before(before):
        node = graph.call_function(_aten.detach.default, (value,))
    node.meta = dict(value.meta)
    return node


def fold_constants(module: GraphModule, *, trained: bool = False) -> int:
    """Compute in place what depends on constants alone, and count; what an activation writes into is none.

    With `trained`, parameters are constants too: for a graph that is to be exported. A large result is then
    stored only where the parameters that it comes from are not read elsewhere, so that none is stored twice.
    """
    excluded: set[Node] = set()
    while True:
        values, roots, spoiled = _computed(module, excluded, trained)
        if trained:
            spoiled |= _stored_twice(values, roots)
        if not spoiled:
            break
        excluded |= spoiled
    count = 0
    parameters = {id(p) for p in module.parameters()}
    for node, value in values.items():
        used = any(user not in values for user in node.users)
        if node.op == "get_attr" or not used or not isinstance(value, Tensor) or id(value) in parameters:
            continue
        name = f"constant_{node.name}"
        while hasattr(module, name):
            name += "_"
        count += 1
        module.register_buffer(name, value.clone().contiguous())
        with module.graph.inserting_before(node):
            new = module.graph.get_attr(name)
        new.meta = {"val": node.meta["val"]}
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user not in values)
    for node in reversed([n for n in values if n.op != "get_attr"]):
        if not node.users:
            module.graph.erase_node(node)
    return count


def _stored_twice(values: dict[Node, Any], roots: dict[Node, set[Node]]) -> set[Node]:
    """The roots of large results some of whose roots have to stay."""
    found: set[Node] = set()
    for node, value in values.items():
        large = isinstance(value, Tensor) and value.numel() > LARGEST_COPY and node.op != "get_attr"
        used = any(user not in values for user in node.users)
        if large and used and any(user not in values for root in roots[node] for user in root.users):
            found |= roots[node]
    return found


def _computed(
    module: GraphModule, excluded: set[Node], trained: bool
) -> tuple[dict[Node, Any], dict[Node, set[Node]], set[Node]]:
    """Values of constant nodes, the roots of each, and the roots that something not constant writes into."""
    values: dict[Node, Any] = {}
    roots: dict[Node, set[Node]] = {}
    read: set[Node] = set()  # roots whose value of the moment an operator that stays has read
    spoiled: set[Node] = set()
    with torch.no_grad():
        for node in module.graph.nodes:
            if node in excluded:
                continue
            if node.op == "get_attr":
                value = attribute(module, str(node.target))
                if not isinstance(value, Tensor) or (isinstance(value, nn.Parameter) and not trained):
                    continue
                if _is_own(node) and any(_is_foldable(user) for user in node.users):
                    values[node], roots[node] = value.clone(), {node}
                continue
            inputs = list(node.all_input_nodes)
            written = roots.get(node.args[0], set()) if _writes(node) else set()
            if _is_new(node):
                values[node], roots[node] = _made_new(node), {node}
            elif _is_foldable(node) and all(i in values for i in inputs):
                values[node] = node.target(*_fill(node.args, values), **_fill(node.kwargs, values))
                roots[node] = {node}.union(*(roots[i] for i in inputs))
                spoiled |= written & read
            else:
                read |= set().union(*(roots.get(i, set()) for i in inputs))
                spoiled |= written
    return values, roots, spoiled


def _is_new(node: Node) -> bool:
    """Whether it takes nothing but type and device from its input, as the masks of shifted windows do."""
    call = call_of(node)
    return call is not None and call.op in _NEW and _is_foldable(node) and len(node.all_input_nodes) == 1


def _made_new(node: Node) -> Any:
    """The tensor that a `new_zeros` or its like gives."""
    like = node.args[0].meta["val"]  # type: ignore[union-attr]
    source = torch.empty(0, dtype=like.dtype, device=like.device)
    return node.target(source, *node.args[1:], **node.kwargs)  # type: ignore[operator]


def _is_own(node: Node) -> bool:
    """A constant of the graph's, not a statistic that training updates."""
    return not any(
        (call := call_of(user)) is not None and ("norm" in call.op or _writes(user)) for user in node.users
    )


def _is_foldable(node: Node) -> bool:
    if node.target is operator.getitem:
        return True
    if call_of(node) is None or torch.Tag.nondeterministic_seeded in node.target.tags:  # type: ignore[union-attr]
        return False
    value = node.meta.get("val")
    tensors = value if isinstance(value, list | tuple) else [value]
    return all(
        isinstance(v, Tensor) and all(isinstance(n, int) for n in v.shape) and v.numel() <= LARGEST
        for v in tensors
    ) and not any(
        isinstance(a, Node) and not isinstance(a.meta.get("val"), Tensor | list | tuple)
        for a in _leaves(node)
    )


def _leaves(node: Node) -> Iterator[Any]:
    yield from node.all_input_nodes


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _fill(value: Any, values: dict[Node, Any]) -> Any:
    return torch.fx.node.map_arg(value, lambda n: values[n])
