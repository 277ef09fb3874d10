"""What a network would need with other widths and without some blocks, fast enough for the solver.

Latency is a sum over layers; each term depends on the few axes that touch the layer's weight and is computed
once per combination of their levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from toolchain.baseline import Baseline
from toolchain.latency.predict import LatencyModel, calibrated, sizes, volume
from toolchain.latency.table import Axes, build_table, grid
from toolchain.program.blocks import blocks
from toolchain.program.channels import widths
from toolchain.program.cost import CostModel, layers
from toolchain.program.widths import Widths
from toolchain.prune.plan import Counts
from toolchain.run import Combination, Run
from toolchain.values import Block, Cost, Layer

BLOCK: Final = "block "
"""Prefix that tells a block's axis from a group's."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The network's layers and parameters and how widths and blocks touch them. Computed once a run."""

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    parameters: Mapping[str, tuple[int, ...]]
    sizes_of: Widths
    touching: Mapping[str, tuple[str, ...]]
    owner: Mapping[str, tuple[str, ...]]
    costs: CostModel

    def key(self, parameter: str, counts: Counts) -> tuple[int, ...] | None:
        """Levels of all axes that touch `parameter` (-1: whole); None when a dropped block holds it."""
        if any(counts.get(BLOCK + b, 1) == 0 for b in self.owner.get(parameter, ())):
            return None
        return tuple(counts.get(g, -1) for g in self.touching.get(parameter, ()))

    def cost(self, counts: Counts) -> Cost:
        """Resources of the network that the counts describe.

        Equal to `cost` of the rewritten program, but for products of two activations inside dropped blocks,
        which stay counted.
        """
        whole = self.costs.of(counts)
        macs, params, neurons = whole.macs, whole.params, whole.neurons
        for layer in self.layers:
            if self.key(layer.weight, counts) is None:
                gone = _of_layer(self, layer, counts)
                macs, neurons = macs - gone[0], neurons - gone[1]
        for name, shape in self.parameters.items():
            if self.key(name, counts) is None:
                params -= math.prod(self.sizes_of.of(name, d, counts) for d in range(len(shape)))
        return Cost(macs=macs, params=params, weight_bytes=4 * params, neurons=neurons)


@dataclass(frozen=True, kw_only=True)
class PlannedLatency:
    """A latency model as a function of kept counts and dropped blocks."""

    model: LatencyModel
    shape: Shape
    _known: dict[tuple[str, tuple[int, ...]], float] = field(default_factory=dict, repr=False, compare=False)

    def ms_of_counts(self, counts: Counts) -> float:
        """Predicted milliseconds. What no layer explains shrinks with the number of layers left."""
        total, alive = 0.0, 0
        for layer in self.shape.layers:
            levels = self.shape.key(layer.weight, counts)
            if levels is None:
                continue
            alive += 1
            known = self._known.get((layer.node, levels))
            if known is None:
                found = sizes(layer, lambda p, d: self.shape.sizes_of.of(p, d, counts))
                known = self._known[(layer.node, levels)] = self.model.layer_ms(layer, found)
            total += known
        return total + self.model.rest_ms() * alive / max(len(self.shape.layers), 1)

    def corrected(self, counts: Counts, measured_ms: float) -> PlannedLatency:
        """Scaled so that it gives `measured_ms` at `counts`."""
        ratio = measured_ms / self.ms_of_counts(counts)
        model = replace(
            self.model, factor=self.model.factor * ratio, measurements=self.model.measurements + 1
        )
        return PlannedLatency(model=model, shape=self.shape)


def shape_of(run: Run) -> Shape:
    """The run's network as the solver sees it."""
    program, found = run.program, blocks(run.program)
    touching: dict[str, list[str]] = {}
    for group in run.channels.groups:
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
    )


def planned_latency(
    run: Run, shape: Shape, combination: Combination, baseline: Baseline, ladders: Mapping[str, Sequence[int]]
) -> PlannedLatency:
    """Layer timings on the target at the widths the planner may choose, fitted to the measured original."""
    runtime = run.runtime(combination[0])
    grids = {
        layer.node: Axes(
            inputs=_axis(shape, layer, False, ladders, runtime.align),
            outputs=_axis(shape, layer, True, ladders, runtime.align),
        )
        for layer in shape.layers
    }
    table = build_table(
        run.device,
        runtime,
        combination[1],
        shape.layers,
        grids,
        threads=run.request.threads,
        cache=run.stages.root / "layer-timings",
        progress=run.progress,
    )
    return PlannedLatency(
        model=calibrated(table, shape.layers, baseline.measurements[combination].p50_ms), shape=shape
    )


def _axis(
    shape: Shape, layer: Layer, outputs: bool, ladders: Mapping[str, Sequence[int]], align: int
) -> tuple[int, ...]:
    """Widths at which to time a layer's input or output: a grid when a group cuts it, else its own width."""
    full = layer.out_channels if outputs else layer.in_channels
    smallest = {name: ladder[-1] for name, ladder in ladders.items()}
    least = sizes(layer, lambda p, d: shape.sizes_of.of(p, d, smallest))
    lowest = least.outputs if outputs else least.inputs
    return (full,) if lowest == full else tuple(w for w in grid(full, align) if w >= min(lowest, full))


def _of_layer(shape: Shape, layer: Layer, counts: Counts) -> tuple[int, int]:
    """MACs and output elements of a layer for one sample."""
    found = sizes(layer, lambda p, d: shape.sizes_of.of(p, d, counts))
    area = math.prod(layer.output_size) * (layer.tokens if layer.kind == "linear" else 1)
    if layer.transposed:
        area = math.prod(layer.input_size)
    macs = area * found.inputs * found.outputs // max(found.groups, 1) * math.prod(layer.kernel)
    return macs, int(volume(layer, found))
