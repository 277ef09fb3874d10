"""The fingerprint of a program: equal for equal computations, whatever its nodes are called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain.program.axes import attribute
from toolchain.values import Program


def fingerprint(program: Program) -> str:
    """sha256 (hex) over operators, constants, used parameters and buffers, and the input and output specs.

    Node names, dead nodes and the order of parameter reads do not enter, so that a saved and reopened
    program keeps its fingerprint.
    """
    digest = hashlib.sha256()
    for line in _lines(program.module):
        digest.update(line.encode())
        digest.update(b"\n")
    for spec in (*program.inputs, *program.outputs):
        digest.update(f"{spec.name} {spec.shape} {spec.dtype}\n".encode())
    for name in sorted({str(n.target) for n in program.module.graph.nodes if n.op == "get_attr" and n.users}):
        value = attribute(program.module, name)
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(_bytes(value))
    return digest.hexdigest()


def _lines(module: GraphModule) -> list[str]:
    """One line per live operator: its target and arguments, nodes by number, parameters by name."""
    numbers: dict[Node, str] = {}
    lines: list[str] = []
    for node in module.graph.nodes:
        if node.op == "get_attr":
            numbers[node] = f"%{node.target}"
            continue
        numbers[node] = f"%{len(lines)}"
        target = "input" if node.op == "placeholder" else str(node.target)
        lines.append(f"{node.op} {target} {_text(node.args, numbers)} {_text(node.kwargs, numbers)}")
    return lines


def _text(value: Any, numbers: Mapping[Node, str]) -> str:
    if isinstance(value, Node):
        return numbers[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(v, numbers) for v in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{k}:{_text(v, numbers)}' for k, v in sorted(value.items()))}}}"
    return repr(value)


def _bytes(value: Tensor) -> bytes:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
