"""What the planner asks the target: the time of layers at other widths, and of one narrow network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from toolchain.baseline import Baseline
from toolchain.contest import reduce
from toolchain.contracts import Sampling
from toolchain.latency.filling import build_table
from toolchain.latency.intervals import median_interval
from toolchain.latency.predict import sizes
from toolchain.latency.table import Axes, LatencyTable, MixedTable, grid
from toolchain.latency.timings import cache_folder
from toolchain.program.capture import fingerprint
from toolchain.prune.plan import Counts
from toolchain.resources import BLOCK, PlannedLatency, Shape, latency_of
from toolchain.run import Combination, Run, build_for, measure
from toolchain.values import Layer, Precision, PrunePlan

NARROW: Final = 0.3
"""Share of its channels that every group of the narrow network keeps: layers hardly weigh, the rest shows."""
CLEAR: Final = 1.2
"""The upper end of the narrow network's share over its lower one, up to which it is clear."""
FURTHER: Final = 3
"""How often as many pairs are added while it is not."""
_MIXED: Final[tuple[Precision, Precision]] = ("int8", "fp32")
SAMPLING: Final = Sampling(trials=6, runs=50, trial_seconds=0.3)


def planned_latency(
    run: Run,
    shape: Shape,
    combination: Combination,
    baseline: Baseline,
    ladders: Mapping[str, Sequence[int]],
    in_float: Sequence[str] = (),
) -> PlannedLatency:
    """Layer timings on the target at the widths the planner may choose, fitted to two measured networks.

    The original alone would not tell what its kernels, their calls and the operators between them take;
    changes of precision at the layers `in_float` are among the latter.
    """
    table = _table(run, shape, combination, ladders, in_float)
    whole_ms = baseline.measurements[combination].p50_ms
    counts = _narrow(ladders)
    known = [(counts, whole_ms * _share(run, baseline, combination, counts, in_float))] if counts else []
    first: Counts = {}
    return latency_of(table, shape, [(first, whole_ms), *known])


def _table(
    run: Run,
    shape: Shape,
    combination: Combination,
    ladders: Mapping[str, Sequence[int]],
    in_float: Sequence[str],
) -> LatencyTable | MixedTable:
    """Layer timings of a combination; of a mixed one those of int8 and of float, each made once a run."""
    if combination[1] == "mixed":
        quantized, plain = ((combination[0], precision) for precision in _MIXED)
        return MixedTable(
            quantized=_known_table(run, shape, quantized, ladders),
            plain=_known_table(run, shape, plain, ladders),
            in_float=frozenset(in_float),
        )
    return _known_table(run, shape, combination, ladders)


def _known_table(
    run: Run, shape: Shape, combination: Combination, ladders: Mapping[str, Sequence[int]]
) -> LatencyTable:
    return run.once(("timings", combination), partial(layer_table, run, shape, combination, ladders))


def layer_table(
    run: Run, shape: Shape, combination: Combination, ladders: Mapping[str, Sequence[int]]
) -> LatencyTable:
    """Timings of every layer at the widths the planner may choose; what the user's cache has is not timed."""
    runtime = run.runtime(combination[0])
    grids = {
        layer.node: Axes(
            inputs=_axis(shape, layer, False, ladders, runtime.align),
            outputs=_axis(shape, layer, True, ladders, runtime.align),
        )
        for layer in shape.layers
    }
    return build_table(
        run.device,
        runtime,
        combination[1],
        shape.layers,
        grids,
        threads=run.request.threads,
        cache=cache_folder(),
        progress=run.progress,
    )


def _narrow(ladders: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Counts of the narrow network; its blocks stay."""
    return {
        name: min(ladder, key=lambda n: abs(n - NARROW * ladder[0]))
        for name, ladder in ladders.items()
        if not name.startswith(BLOCK)
    }


def _share(
    run: Run, baseline: Baseline, combination: Combination, counts: Counts, in_float: Sequence[str]
) -> float:
    """The narrow network's latency as a share of the original's, by pairs of trials in turns.

    All that is planned rests on it, so pairs are added while they disagree.
    """
    plan = PrunePlan(
        program=fingerprint(run.program),
        criterion="none",
        keep={name: tuple(range(count)) for name, count in counts.items()},
    )
    program = reduce(run.program, run.channels, plan)
    narrow = build_for(run, program, [combination], in_float)[combination]
    shares: list[float] = []
    for attempt in range(1 + FURTHER):
        original, small = measure(run, [baseline.artifacts[combination], narrow], SAMPLING, attempt=attempt)
        shares += [
            float(np.median(after) / np.median(before))
            for before, after in zip(original.samples_ms, small.samples_ms, strict=True)
        ]
        share = median_interval(shares)
        if share.high <= CLEAR * share.low:
            break
    return share.value


def _axis(
    shape: Shape, layer: Layer, outputs: bool, ladders: Mapping[str, Sequence[int]], align: int
) -> tuple[int, ...]:
    """Widths at which to time a layer's input or output: a grid when a group cuts it, else its own width."""
    full = layer.out_channels if outputs else layer.in_channels
    smallest = {name: ladder[-1] for name, ladder in ladders.items()}
    least = sizes(layer, lambda p, d: shape.sizes_of.of(p, d, smallest))
    lowest = least.outputs if outputs else least.inputs
    return (full,) if lowest == full else tuple(w for w in grid(full, align) if w >= min(lowest, full))
