"""Inputs and outputs of a captured graph: positional tensors in, one tensor or a flat tuple out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.utils._pytree import tree_flatten_with_path

from toolchain.errors import UnsupportedError
from toolchain.values import TensorSpec


def flatten_signature(
    module: GraphModule, exported: ExportedProgram, names: Sequence[str]
) -> tuple[str, ...]:
    """Make `module(*tensors)` return one tensor, or a tuple of tensors; gives names of the outputs.

    Raises:
        UnsupportedError: keyword or nested inputs; an output that is no tensor of the graph.
    """
    _check_inputs(exported)
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    for node, name in zip(placeholders, names, strict=False):
        node.target = name
        node._rename(name)
    output = module.graph.output_node()
    found = _outputs(output, exported)
    if not found:
        raise UnsupportedError("the network has no tensor as output")
    nodes = [node for _, node in found]
    output.args = (nodes[0] if len(nodes) == 1 else tuple(nodes),)
    module.graph.set_codegen(CodeGen())
    module.recompile()
    return tuple(name for name, _ in found)


def input_specs(module: GraphModule) -> tuple[TensorSpec, ...]:
    """Specs of the graph's inputs; symbolic sizes are None."""
    return tuple(_spec(n, str(n.target)) for n in module.graph.nodes if n.op == "placeholder")


def output_specs(module: GraphModule, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Specs of the graph's outputs, in order."""
    value = module.graph.output_node().args[0]
    nodes = [value] if isinstance(value, Node) else list(value)  # type: ignore[arg-type]
    return tuple(_spec(node, name) for node, name in zip(nodes, names, strict=True))


def _check_inputs(exported: ExportedProgram) -> None:
    children = exported.call_spec.in_spec.children() if exported.call_spec.in_spec else []
    nested = children and not all(child.is_leaf() for child in children[0].children())
    if len(children) > 1 and children[1].num_leaves:
        raise UnsupportedError("the network takes keyword inputs", hint="export it with positional inputs")
    if nested:
        raise UnsupportedError("the network takes nested inputs", hint="export it with one tensor per input")


def _outputs(output: Node, exported: ExportedProgram) -> list[tuple[str, Node]]:
    """Tensors among the outputs, named by their key in the user's structure."""
    flat: list[Any] = list(output.args[0])  # type: ignore[arg-type]
    spec = exported.call_spec.out_spec
    tree = torch.utils._pytree.tree_unflatten(flat, spec) if spec else tuple(flat)
    paths = tree_flatten_with_path(tree)[0]
    named: list[tuple[str, Node]] = []
    for path, node in paths:
        if isinstance(node, Node) and isinstance(node.meta.get("val"), torch.Tensor):
            key = "_".join(str(getattr(p, "key", getattr(p, "idx", getattr(p, "name", p)))) for p in path)
            named.append((f"output_{key}" if key.isdigit() else key or "output", node))
    return named


def _spec(node: Node, name: str) -> TensorSpec:
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        raise UnsupportedError(f"input {name} is no tensor", hint="fix such inputs at export")
    shape = tuple(size if isinstance(size, int) else size.node.maybe_as_int() for size in value.shape)
    return TensorSpec(name=name, shape=shape, dtype=str(value.dtype).removeprefix("torch."))
