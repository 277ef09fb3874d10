"""The latency of a network that does not exist yet, from layer timings and measurements of whole networks.

    ms = factor * (kernel * sum of layer_ms + calls * layers / layers of the original
                   + moving * volume / volume of the original)

Layers timed alone do not explain a network: calling a kernel costs time, operators without weights move, add
or pass on activations in proportion to what they read and write, and a kernel finds another cache than it did
alone. What that amounts to is fitted to whole networks of other widths, of which the original is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from toolchain.errors import InputError
from toolchain.latency.table import LatencyTable, MixedTable, Sizes, is_depthwise
from toolchain.values import Layer

CALL_MS: Final = 0.005
"""What calling a kernel costs besides its time on a CPU (measured: 4-6 us in ONNX Runtime and LiteRT)."""
NOISE: Final = 0.01
"""Standard error of a measured whole network, as a share of it."""
DOUBT: Final = (0.1, 0.6, 1.0)
"""How far kernels, calls and moving may lie from what one expects, as shares: one standard deviation."""


class Whole(NamedTuple):
    """A measured network: its layers' timings summed, how many they are, what moves, and its milliseconds.

    `moved` is a share of what moves in the original.
    """

    kernels_ms: float
    layers: float
    moved: float
    measured_ms: float


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Predicts the milliseconds of a pruned network; see the module for the formula.

    With its table alone it is the sum of the layers as they were timed.
    """

    table: LatencyTable | MixedTable
    kernel: float = 1.0
    calls_ms: float = 0.0
    moving_ms: float = 0.0
    factor: float = 1.0

    def layer_ms(self, layer: Layer, sizes: Sizes) -> float:
        """The layer's kernel."""
        return self.factor * self.kernel * self.table.layer_ms(layer, *sizes)

    def rest_ms(self) -> float:
        """The share of the prediction that no width changes."""
        return self.factor * self.calls_ms

    def moved_ms(self) -> float:
        """The share of the original's prediction that goes with the volume of moved activations."""
        return self.factor * self.moving_ms


def fitted(table: LatencyTable | MixedTable, wholes: Sequence[Whole]) -> LatencyModel:
    """The model nearest to all measured networks, and exact for the last of them.

    Least squares of relative errors, no part negative. Expected are kernels as they were timed, calls of
    `CALL_MS`, and moving as what these leave of the first network; the more measurements, the less that
    weighs. Where the first network's kernels sum to more than all of it, they are scaled down.

    Raises:
        InputError: no network, or a measured time that is not positive.
    """
    if not wholes or not all(whole.measured_ms > 0 for whole in wholes):
        raise InputError("a prediction needs measured latencies, each above 0 ms")
    first = wholes[0]
    kernel = min(1.0, first.measured_ms / first.kernels_ms) if first.kernels_ms else 1.0
    rest = max(first.measured_ms - kernel * first.kernels_ms, 0.0)
    call = min(CALL_MS, rest / first.layers) if first.moved and first.layers else rest / max(first.layers, 1)
    expected = np.array([kernel, call, rest - call * first.layers])
    doubt = np.array(DOUBT) * [kernel, max(call, CALL_MS), max(first.measured_ms, CALL_MS)]
    parts = np.array([whole[:3] for whole in wholes])
    times = np.array([whole.measured_ms for whole in wholes])
    rows = np.vstack([parts / (NOISE * times[:, None]), np.diag(1 / doubt)])
    aims = np.concatenate([np.full(len(times), 1 / NOISE), expected / doubt])
    found = _nonnegative(rows, aims)
    last = float(parts[-1] @ found)
    return LatencyModel(
        table=table,
        kernel=float(found[0]),
        calls_ms=float(found[1]) * first.layers,
        moving_ms=float(found[2]),
        factor=float(times[-1]) / last if last else 1.0,
    )


def _nonnegative(rows: np.ndarray, aims: np.ndarray) -> np.ndarray:
    """The least-squares solution without negative parts, by trying every set of parts that are not 0."""
    best, least = np.zeros(rows.shape[1]), float("inf")
    for count in range(1, rows.shape[1] + 1):
        for chosen in itertools.combinations(range(rows.shape[1]), count):
            found = np.zeros(rows.shape[1])
            found[list(chosen)] = np.linalg.lstsq(rows[:, chosen], aims, rcond=None)[0]
            error = float(((rows @ found - aims) ** 2).sum())
            if (found >= 0).all() and error < least:
                best, least = found, error
    return best


def original(layer: Layer) -> Sizes:
    """The layer's own widths."""
    return Sizes(layer.in_channels, layer.out_channels, layer.groups)


def sizes(layer: Layer, of: Callable[[str, int], int]) -> Sizes:
    """The layer's widths where `of(parameter, dim)` gives the sizes of parameter dimensions.

    The number of groups stays, except in depthwise layers, where it is the width.
    """
    if is_depthwise(layer):
        outputs = of(layer.weight, 0)
        width = outputs * layer.in_channels // layer.out_channels
        return Sizes(width, outputs, width)
    first, second = of(layer.weight, 0), of(layer.weight, 1)
    if layer.transposed:
        return Sizes(first, second * layer.groups, layer.groups)
    return Sizes(second * layer.groups, first, layer.groups)


def volume(layer: Layer, widths: Sizes) -> float:
    """Elements of the layer's output, one sample."""
    spatial = 1
    for side in layer.output_size:
        spatial *= side
    return float(widths.outputs * spatial * (layer.tokens if layer.kind == "linear" else 1))
