"""What a network would need with other widths and without some blocks, fast enough for the solver.

Every resource is a sum of terms over the few axes that touch a layer's weight or a parameter; a term takes
single counts, or arrays of them to fill a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np

from toolchain.latency.foretold import ForetoldLayers
from toolchain.latency.moving import movers
from toolchain.latency.predict import LatencyModel, Whole, fitted, sizes
from toolchain.latency.table import LatencyTable, MixedTable, Sizes
from toolchain.program.blocks import blocks
from toolchain.program.channels import widths
from toolchain.program.cost import RESOURCES, CostModel, layers, volumes
from toolchain.program.widths import Widths
from toolchain.prune.plan import Counts, Term
from toolchain.prune.unions import Unions
from toolchain.run import Run
from toolchain.values import Block, Cost, Layer

Resource = Literal["macs", "params", "neurons"]
BLOCK: Final = "block "
"""Prefix that tells a block's axis from a group's."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Activations moved by the operators without weights that stand in the same blocks, weighted by effort.

    `parts` are sums of products of kept counts; `groups` are all that occur in them.
    """

    blocks: tuple[str, ...]
    groups: tuple[str, ...]
    parts: tuple[tuple[float, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The network's layers and parameters and how widths and blocks touch them. Computed once a run.

    `unions` tell what loose additions put out; without them that is an axis like others.
    """

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    parameters: Mapping[str, tuple[int, ...]]
    sizes_of: Widths
    touching: Mapping[str, tuple[str, ...]]
    owner: Mapping[str, tuple[str, ...]]
    costs: CostModel
    moved: tuple[Moved, ...] = ()
    unions: Unions | None = None

    def cost(self, counts: Counts) -> Cost:
        """Resources of the network that the counts describe.

        Equal to `cost` of the rewritten program, but for products of two activations inside dropped blocks,
        which stay counted.
        """
        macs, params, neurons = (
            sum(int(term.values(counts)) for term in self.terms(r)) for r in ("macs", "params", "neurons")
        )
        return Cost(macs=macs, params=params, weight_bytes=4 * params, neurons=neurons)

    def terms(self, resource: Resource) -> tuple[Term, ...]:
        """A resource as a sum over a few axes each: of all blocks, less what dropped ones hold."""
        column = RESOURCES.index(resource)
        whole: dict[tuple[str, ...], list[tuple[int, tuple[str, ...]]]] = {}
        for powers, row in zip(self.costs.powers.tolist(), self.costs.coefficients.tolist(), strict=True):
            names = tuple(self.costs.names[p - 1] for p in powers if p)
            if row[column]:
                whole.setdefault(tuple(sorted(set(names))), []).append((row[column], names))
        sizes_ = dict(zip(self.costs.names, self.costs.sizes, strict=True))
        found = [Term(axes=axes, values=partial(_polynomial, parts, sizes_)) for axes, parts in whole.items()]
        if resource == "params":
            gone = [
                (name, partial(self._parameters, name)) for name in self.parameters if self.owner.get(name)
            ]
        else:
            gone = [
                (layer.weight, partial(_of_layer, self, layer, resource))
                for layer in self.layers
                if self.owner.get(layer.weight)
            ]
        less = (Term(axes=self.axes(name), values=partial(self._less, name, part)) for name, part in gone)
        return self.chosen((*found, *less))

    def chosen(self, terms: Iterable[Term]) -> tuple[Term, ...]:
        """The terms as ones over what is chosen, as far as that is known."""
        return tuple(terms) if self.unions is None else tuple(self.unions.term(term) for term in terms)

    def axes(self, parameter: str) -> tuple[str, ...]:
        """All axes that touch a parameter: groups, and the blocks that hold it."""
        return (*self.touching.get(parameter, ()), *(BLOCK + b for b in self.owner.get(parameter, ())))

    def alive(self, parameter: str, counts: Mapping[str, Any]) -> Any:
        """1 while no dropped block holds the parameter, else 0."""
        present: Any = 1
        for block in self.owner.get(parameter, ()):
            present = present * counts.get(BLOCK + block, 1)
        return present

    def volume(self, counts: Counts) -> float:
        """What the operators without weights move, weighted by effort; nothing in dropped blocks."""
        sizes_ = dict(zip(self.costs.names, self.costs.sizes, strict=True))
        known = counts if self.unions is None else self.unions.counts(counts)
        return sum(float(_moving(moved, sizes_, 1.0, known)) for moved in self.moved)

    def _less(
        self, parameter: str, amount: Callable[[Mapping[str, Any]], Any], counts: Mapping[str, Any]
    ) -> Any:
        return (self.alive(parameter, counts) - 1) * amount(counts)

    def _parameters(self, name: str, counts: Mapping[str, Any]) -> Any:
        return math.prod(self.sizes_of.of(name, d, counts) for d in range(len(self.parameters[name])))


@dataclass(frozen=True, kw_only=True)
class PlannedLatency:
    """A latency model as a function of kept counts and dropped blocks.

    `known` are the counts of measured networks and their milliseconds, the original first.
    """

    model: LatencyModel | ForetoldLayers
    shape: Shape
    known: tuple[tuple[Counts, float], ...] = ()

    def ms_of_counts(self, counts: Counts) -> float:
        """Predicted milliseconds. What no layer explains shrinks with the number of layers left."""
        return float(sum(float(term.values(counts)) for term in self.terms()))

    def terms(self) -> tuple[Term, ...]:
        """The milliseconds of every layer, each with its share of what no layer explains."""
        kernels = tuple(
            Term(axes=self.shape.axes(layer.weight), values=partial(self._layer, layer))
            for layer in self.shape.layers
        )
        if not self.model.moved_ms():
            return self.shape.chosen(kernels)
        sizes_ = dict(zip(self.shape.costs.names, self.shape.costs.sizes, strict=True))
        each = self.model.moved_ms() / self.shape.volume({})
        return self.shape.chosen(
            (
                *kernels,
                *(
                    Term(
                        axes=(*moved.groups, *(BLOCK + block for block in moved.blocks)),
                        values=partial(_moving, moved, sizes_, each),
                    )
                    for moved in self.shape.moved
                ),
            )
        )

    def _layer(self, layer: Layer, counts: Mapping[str, Any]) -> Any:
        share = self.model.rest_ms() / len(self.shape.layers)
        found = sizes(layer, lambda p, d: self.shape.sizes_of.of(p, d, counts))
        widths_ = np.broadcast_arrays(*found)
        rows, back = np.unique(np.stack([w.reshape(-1) for w in widths_]), axis=1, return_inverse=True)
        each = np.array([self.model.layer_ms(layer, Sizes(*row)) for row in rows.T.tolist()])
        return (each[back.reshape(-1)].reshape(widths_[0].shape) + share) * self.shape.alive(
            layer.weight, counts
        )

    def corrected(self, counts: Counts, measured_ms: float) -> PlannedLatency:
        """What it becomes once the network of `counts` took `measured_ms`, which it then predicts.

        A model of layer timings is fitted to all networks known, a calibrated one is scaled.
        """
        known = (*self.known, (counts, measured_ms))
        model = self.model
        if isinstance(model, ForetoldLayers):
            factor = model.factor * measured_ms / self.ms_of_counts(counts)
            return replace(self, model=replace(model, factor=factor), known=known)
        return latency_of(model.table, self.shape, known)

    def _whole(self, counts: Counts, measured_ms: float) -> Whole:
        """A measured network as the fit sees it; needs the model of the layers as they were timed."""
        volume = self.shape.volume({})
        return Whole(
            kernels_ms=self.ms_of_counts(counts),
            layers=sum(float(self.shape.alive(layer.weight, counts)) for layer in self.shape.layers),
            moved=self.shape.volume(counts) / volume if volume else 0.0,
            measured_ms=measured_ms,
        )


def latency_of(
    table: LatencyTable | MixedTable, shape: Shape, known: Sequence[tuple[Counts, float]]
) -> PlannedLatency:
    """The latency of a network by its layers' timings and measured networks, the original first.

    Raises:
        InputError: no network, or a time that is not positive.
    """
    timed = PlannedLatency(model=LatencyModel(table=table), shape=shape)
    return replace(timed, model=fitted(table, [timed._whole(*one) for one in known]), known=tuple(known))


def shape_of(run: Run) -> Shape:
    """The run's network as the solver sees it."""
    program, found = run.program, blocks(run.program)
    touching: dict[str, list[str]] = {}
    for group in run.channels.all:
        for name in dict.fromkeys(m.parameter for m in group.members):
            touching.setdefault(name, []).append(group.name)
    owner: dict[str, list[str]] = {}
    for block in found:
        for name in block.parameters:
            owner.setdefault(name, []).append(block.name)
    return Shape(
        layers=layers(program),
        blocks=found,
        parameters={n: tuple(p.shape) for n, p in program.module.named_parameters()},
        sizes_of=widths(program, run.channels),
        touching={n: tuple(g) for n, g in touching.items()},
        owner={n: tuple(b) for n, b in owner.items()},
        costs=CostModel.of_program(program, run.channels),
        moved=_moved(run, found),
    )


def _polynomial(
    parts: Sequence[tuple[float, tuple[str, ...]]], sizes_: Mapping[str, int], counts: Mapping[str, Any]
) -> Any:
    total: Any = 0
    for coefficient, names in parts:
        value: Any = coefficient
        for name in names:
            value = value * counts.get(name, sizes_[name])
        total = total + value
    return total


def _moving(moved: Moved, sizes_: Mapping[str, int], each: float, counts: Mapping[str, Any]) -> Any:
    """Milliseconds of moving activations; none in dropped blocks."""
    value = each * _polynomial(moved.parts, sizes_, counts)
    for block in moved.blocks:
        value = value * counts.get(BLOCK + block, 1)
    return value


def _moved(run: Run, found: Sequence[Block]) -> tuple[Moved, ...]:
    """What the operators without weights move, summed over those that the same blocks hold."""
    inside: dict[str, list[str]] = {}
    for block in found:
        for node in (*block.nodes, block.add):
            inside.setdefault(node, []).append(block.name)
    known = movers(run.program)
    sums: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[tuple[str, ...], float]] = {}
    volume = volumes(run.program, run.channels, {mover.node for mover in known})
    for mover in known:
        for elements, names in volume[mover.node]:
            blocks_ = tuple(inside.get(mover.node, ()))
            own = sums.setdefault((blocks_, tuple(sorted(set(names)))), {})
            own[names] = own.get(names, 0.0) + mover.effort * elements
    return tuple(
        Moved(blocks=blocks_, groups=groups, parts=tuple((e, names) for names, e in own.items()))
        for (blocks_, groups), own in sums.items()
    )


def _of_layer(shape: Shape, layer: Layer, resource: Resource, counts: Mapping[str, Any]) -> Any:
    """MACs or output elements of a layer for one sample."""
    found = sizes(layer, lambda p, d: shape.sizes_of.of(p, d, counts))
    rows = layer.tokens if layer.kind == "linear" else 1
    if resource == "neurons":
        return found.outputs * math.prod(layer.output_size) * rows
    area = math.prod(layer.input_size) if layer.transposed else math.prod(layer.output_size) * rows
    return area * found.inputs * found.outputs // np.maximum(found.groups, 1) * math.prod(layer.kernel)
