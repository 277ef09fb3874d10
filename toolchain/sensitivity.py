"""How much int8 hurts each layer: the nats that treating it alone adds to the network's outputs.

A layer is treated as the runtimes do: its weights rounded per output channel, symmetric; the activations that
it reads and puts out (behind an activation function that they fuse) per tensor, with an offset. Where one
tensor suffers, the layers on both of its sides rank high: kept in float together, it stays float.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from toolchain.plain import to_plain
from toolchain.program.axes import call_of
from toolchain.program.capture import fingerprint
from toolchain.program.cost import layers
from toolchain.program.lower import lower
from toolchain.run import Run
from toolchain.train.distil import distillation_loss
from toolchain.train.metric import as_tuple
from toolchain.values import Layer, Program

RANKED: Final = 32
"""Training samples on which layers are compared: they are ranked, not measured."""
_FUSED: Final = ("relu", "relu6", "hardtanh", "clamp")
_PRODUCTS: Final = ("addmm", "mm", "matmul")
"""Products with a matrix [in, out]."""


def sensitivities(run: Run) -> Mapping[str, float]:
    """Nats (mean squared error where there are no classes) by the name of a layer's weight, largest first.

    A finished stage. Layers that the exported graph has no more are left out.
    """
    data = run.data
    assert data is not None

    def make(folder: Path) -> None:
        with run.stage("Damage of int8 in each layer", "plan"):
            found = _measured(run)
        (folder / "sensitivities.json").write_text(json.dumps(found), encoding="utf-8")

    inputs = [fingerprint(run.program), data.fingerprint(), to_plain(run.request.preprocessing), RANKED]
    folder, _ = run.stages.once("sensitivities", inputs, make)
    found: dict[str, float] = json.loads((folder / "sensitivities.json").read_text(encoding="utf-8"))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _measured(run: Run) -> dict[str, float]:
    assert run.data is not None
    inputs, target = run.data.calibration(RANKED)
    lowered = lower(run.program)
    known = {layer.node: layer for layer in layers(lowered)}
    found: dict[str, float] = {}
    with torch.no_grad():
        original = as_tuple(run.program.module(*inputs))
        wanted = layers(run.program)
        for number, layer in enumerate(wanted, 1):
            if layer.node in known:
                outputs = as_tuple(_Treated(lowered, known[layer.node]).run(*inputs))
                nats = float(distillation_loss(outputs, original, target, temperature=1, weight=1))
                found[layer.weight] = found.get(layer.weight, 0.0) + nats
            run.progress.step(number, len(wanted), layer.weight)
    return found


class _Treated(Interpreter):
    """The graph with one layer in int8, everything else in float."""

    def __init__(self, program: Program, layer: Layer) -> None:
        super().__init__(program.module)
        nodes = {node.name: node for node in program.module.graph.nodes}
        self._node, self._layer = nodes[layer.node], layer
        self._end = _end(self._node)

    def run_node(self, n: Node) -> Any:
        """The node's value, on rounded inputs and rounded where the layer ends."""
        found = self._rounded(n) if n is self._node else super().run_node(n)
        return per_tensor(found) if n is self._end else found

    def _rounded(self, n: Node) -> Any:
        call = call_of(n)
        assert call is not None
        product = call.op in _PRODUCTS
        first = int(call.op == "addmm")  # which begins with its bias
        dim = int(product or self._layer.transposed)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        inputs, weight = per_tensor(args[first]), per_channel(args[first + 1], dim)
        return self.call_function(n.target, (*args[:first], inputs, weight, *args[first + 2 :]), kwargs)


def _end(node: Node) -> Node:
    """The node itself, or the activation function alone behind it."""
    readers = list(node.users)
    call = call_of(readers[0]) if len(readers) == 1 else None
    return readers[0] if call is not None and call.op in _FUSED else node


def per_tensor(value: Tensor) -> Tensor:
    """Rounded to 256 steps between the least and the largest value, 0 among them."""
    low, high = value.amin().clamp_max(0), value.amax().clamp_min(0)
    step = ((high - low) / 255).clamp_min(torch.finfo(value.dtype).tiny)
    zero = torch.round(-low / step)
    return (torch.clamp(torch.round(value / step) + zero, 0, 255) - zero) * step


def per_channel(weight: Tensor, dim: int) -> Tensor:
    """Rounded to whole multiples of a 127th of the largest magnitude of its channel along `dim`."""
    others = [d for d in range(weight.dim()) if d != dim]
    step = (weight.abs().amax(others, keepdim=True) / 127).clamp_min(torch.finfo(weight.dtype).tiny)
    return torch.clamp(torch.round(weight / step), -127, 127) * step
