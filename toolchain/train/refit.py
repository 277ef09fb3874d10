"""Weights of a cut network fitted to the original's, without training.

Layer by layer, in the order of the graph: from what the layer gets in the cut network (whose earlier layers
are fitted already), its weights are chosen so that it puts out what it put out in the original, in the least
squares over positions of real samples. The change of the weights is held small by a ridge. Batch norm uses
the batch's own statistics meanwhile, as in training, and remembers them.
Source: He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, eq. 5 and
section 3.2 (the whole network: original outputs, approximated inputs).

Given:  x the layer's inputs in the cut network, y its outputs in the original at the units that stay, W
Result: W + D, D = argmin |y - (W + D) x|^2 + ridge |D|^2; with means taken off where a bias or a batch norm
        makes up for them
"""

from __future__ import annotations

import copy
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from toolchain.program.axes import Call, call_of
from toolchain.program.slices import positions
from toolchain.program.windows import windows
from toolchain.train.reestimate import adaptive
from toolchain.values import Channels, Program

ROWS: Final = 32768
"""Positions, over all samples, that a layer is fitted to."""
FEATURES: Final = 4608
"""Inputs of a layer (channels times kernel elements) above which solving would take too long: it stays."""
RIDGE: Final = 1e-2
"""Strength of the ridge, as a share of the inputs' mean energy."""
PART: Final = 4096
_CONVOLUTIONS: Final = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution")


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """The program with fitted weights, and the weights that were fitted."""

    program: Program
    weights: tuple[str, ...]


def refit(
    original: Program,
    cut: Program,
    channels: Channels,
    keep: Mapping[str, tuple[int, ...]],
    inputs: tuple[Tensor, ...],
) -> Refitted:
    """A copy of `cut` whose plain convolutions and linear layers are fitted to the original's outputs.

    Left as they are: grouped and transposed convolutions, weights that several layers share or the graph
    computes, layers whose original is put out at other positions.

    Args:
        original: what was analysed.
        cut: `apply(original, channels, keep)`, perhaps with whole blocks dropped.
        channels: what `analyse(original)` gave.
        keep: the units that stayed, by group.
        inputs: samples [n, ...] of every input; the activations of all of them are in memory at once.
    """
    network, _ = adaptive(cut)
    network = copy.deepcopy(network)
    network.requires_grad_(False)
    known = _lone_layers(original.module)
    wanted = {name for name, node in _lone_layers(network).items() if name in known and not _grouped(node)}
    done: list[str] = []
    with torch.no_grad():
        targets = _Walk(original.module, wanted).outputs(inputs)
        walk = _Walk(network, wanted)
        for name, node in walk.layers(inputs):
            # The cut graph has the original's layers in the original's order, perhaps without some of them.
            target = next(y for other, y in targets if other == name)
            target = _kept(target, _channel(node, target), _gone(channels, keep, name))
            if _fit(network, walk, node, target):
                done.append(name)
    module = copy.deepcopy(cut.module)
    module.load_state_dict({name: network.state_dict()[name] for name in module.state_dict()})
    return Refitted(program=replace(cut, module=module), weights=tuple(done))


class _Walk(Interpreter):
    """Runs a graph node by node, and stops at the layers that are wanted."""

    def __init__(self, module: GraphModule, wanted: set[str]) -> None:
        super().__init__(module)
        self._wanted = wanted

    def layers(self, inputs: tuple[Tensor, ...]) -> Iterator[tuple[str, Node]]:
        """Every wanted layer before it runs: its weight's name and its node."""
        for name, node, before in self._steps(inputs):
            if before:
                yield name, node

    def outputs(self, inputs: tuple[Tensor, ...]) -> Iterator[tuple[str, Tensor]]:
        """Every wanted layer after it ran: its weight's name and what it put out."""
        for name, node, before in self._steps(inputs):
            if not before:
                yield name, self.env[node]

    def _steps(self, inputs: tuple[Tensor, ...]) -> Iterator[tuple[str, Node, bool]]:
        self.env = {}
        self.args_iter = iter(inputs)
        for node in self.graph.nodes:
            if node.op == "output":
                return
            name = _weight(node)
            if name in self._wanted:
                yield name, node, True
            self.env[node] = self.run_node(node)
            if name in self._wanted:
                yield name, node, False
            for dead in self.user_to_last_uses.get(node, ()):
                del self.env[dead]


def _fit(network: GraphModule, walk: _Walk, node: Node, target: Tensor) -> bool:
    """Change the layer's weight, and its bias where it has one; False where it cannot be fitted."""
    call = _call(node)
    x, weight = walk.env[call["input"]], walk.env[call["weight"]]
    bias = walk.env[call["bias"]] if _owned(network, call.arguments.get("bias")) else None
    if weight[0].numel() > FEATURES:
        return False
    rows = _rows(call, x, weight, target)
    if rows is None:
        return False
    seen, wished = rows
    flat = weight.flatten(1).double()
    constant = bias is not None or _normed(node)
    offset = _value(walk, call.arguments.get("bias")) if bias is None else None
    if offset is not None:
        wished = wished - offset
    moments = _moments(seen, wished, flat, centred=constant)
    energy = moments.inputs.diagonal().mean()
    if not energy > 0:
        return False
    ridge = RIDGE * energy * torch.eye(len(moments.inputs), dtype=torch.float64)
    found = flat + torch.linalg.solve(moments.inputs + ridge, moments.missing).T
    if not torch.isfinite(found).all():
        return False
    weight.copy_(found.reshape(weight.shape).to(weight.dtype))
    if bias is not None:
        bias.copy_((moments.wished - found @ moments.seen).to(bias.dtype))
    return True


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """Second moments of the inputs [f, f], of inputs with what is missing [f, o]; means [f] and [o]."""

    inputs: Tensor
    missing: Tensor
    seen: Tensor
    wished: Tensor


def _moments(seen: Tensor, wished: Tensor, weight: Tensor, *, centred: bool) -> _Moments:
    features, outputs = seen.shape[1], wished.shape[1]
    x_mean = seen.mean(0, dtype=torch.float64) if centred else torch.zeros(features, dtype=torch.float64)
    y_mean = wished.mean(0, dtype=torch.float64) if centred else torch.zeros(outputs, dtype=torch.float64)
    inputs = torch.zeros(features, features, dtype=torch.float64)
    missing = torch.zeros(features, outputs, dtype=torch.float64)
    for start in range(0, len(seen), PART):
        x = seen[start : start + PART].double() - x_mean
        y = wished[start : start + PART].double() - y_mean
        inputs += x.T @ x
        missing += x.T @ (y - x @ weight.T)
    return _Moments(inputs=inputs, missing=missing, seen=x_mean, wished=y_mean)


def _rows(call: Call, x: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
    """Inputs [rows, features] and wished outputs [rows, outputs] at random positions; None: they differ."""
    random = torch.Generator().manual_seed(zlib.crc32(str(call.node.name).encode()))
    if call.op == "linear":
        seen, wished = x.flatten(0, -2), target.flatten(0, -2)
        if len(seen) != len(wished):
            return None
        if len(seen) > ROWS:
            some = torch.randperm(len(seen), generator=random)[:ROWS]
            seen, wished = seen[some], wished[some]
        return seen, wished
    views = windows(x, weight, call.arguments)
    spatial = views.shape[2 : target.dim()]
    if spatial != target.shape[2:] or len(views) != len(target):
        return None
    count = spatial.numel()
    some = torch.randperm(count, generator=random)[: max(1, ROWS // len(x))]
    at: list[Any] = [slice(None), slice(None), *torch.unravel_index(some, spatial)]
    chosen, wished = views[tuple(at)], target[tuple(at)]
    return chosen.movedim(1, 2).flatten(0, 1).flatten(1), wished.movedim(1, 2).flatten(0, 1)


def _lone_layers(module: GraphModule) -> dict[str, Node]:
    """The layers whose weight is a parameter that nothing else reads, by its name."""
    known = dict(module.named_parameters(remove_duplicate=False))
    reads: Counter[int] = Counter()
    for node in module.graph.nodes:
        if node.op == "get_attr" and str(node.target) in known:
            reads[id(known[str(node.target)])] += len(node.users)
    layers = ((_weight(node), node) for node in module.graph.nodes)
    return {name: node for name, node in layers if name in known and reads[id(known[name])] == 1}


def _weight(node: Node) -> str | None:
    """The name of a layer's weight where it is read as it is; None for any other node."""
    call = call_of(node)
    if call is None or call.op not in (*_CONVOLUTIONS, "linear") or call.arguments.get("transposed"):
        return None
    weight = call["weight"]
    return str(weight.target) if isinstance(weight, Node) and weight.op == "get_attr" else None


def _call(node: Node) -> Call:
    found = call_of(node)
    assert found is not None
    return found


def _grouped(node: Node) -> bool:
    return int(_call(node).arguments.get("groups", 1)) != 1


def _owned(network: GraphModule, bias: object) -> bool:
    """Whether a bias is a parameter that this layer alone reads."""
    if not isinstance(bias, Node) or bias.op != "get_attr" or len(bias.users) != 1:
        return False
    return str(bias.target) in dict(network.named_parameters())


def _value(walk: _Walk, bias: object) -> Tensor | None:
    return walk.env[bias] if isinstance(bias, Node) else None


def _normed(node: Node) -> bool:
    """Whether nothing but batch norms reads the layer: they take the mean off."""
    calls = [call_of(user) for user in node.users]
    return all(call is not None and call.op == "batch_norm" for call in calls)


def _channel(node: Node, output: Tensor) -> int:
    return output.dim() - 1 if _call(node).op == "linear" else 1


def _gone(channels: Channels, keep: Mapping[str, tuple[int, ...]], name: str) -> Tensor:
    """The removed outputs of the layer with this weight."""
    found = [torch.zeros(0, dtype=torch.long)]
    for group in channels.all:
        if group.name in keep:
            units = sorted(set(range(group.size)) - set(keep[group.name]))
            found += [positions(m, units) for m in group.members if m.parameter == name and m.dim == 0]
    return torch.cat(found)


def _kept(target: Tensor, dim: int, gone: Tensor) -> Tensor:
    stays = torch.ones(target.shape[dim], dtype=torch.bool)
    stays[gone] = False
    return target if bool(stays.all()) else target.index_select(dim, stays.nonzero().flatten())
