"""How many output channels of convolutions and linear layers are in a prunable group, and why not all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from toolchain.program.channels import Analysis
from toolchain.program.cost import layers
from toolchain.program.labels import FIXED
from toolchain.values import Layer, Program


def share(program: Program, analysis: Analysis) -> dict[str, Any]:
    """Channels by what may become of them; a weight used several times counts once.

    Returns:
        `prunable`: in a group of at least 2 units. `outputs`: reach an output of the network, as those of the
        final classifier do. `frozen`: the others, listed in `missing` by layer and reason.
    """
    nodes = {node.name: node for node in program.module.graph.nodes}
    counts = {"prunable": 0, "outputs": 0, "frozen": 0}
    missing: list[dict[str, Any]] = []
    seen: set[str] = set()
    for layer in layers(program):
        if layer.weight in seen:
            continue
        seen.add(layer.weight)
        axes = analysis.tracing.axes(nodes[layer.node])
        dim = -1 if layer.kind == "linear" else len(axes) - 1 - len(layer.kernel)
        free, reasons = _of(analysis, layer, axes.labels[dim])
        counts["prunable"] += free
        for reason, count in reasons.items():
            ends = "reaches an output" in reason
            counts["outputs" if ends else "frozen"] += count
            if not ends:
                missing.append({"layer": layer.weight, "channels": count, "reason": reason})
    return {**counts, "missing": missing}


def _of(analysis: Analysis, layer: Layer, vector: Any) -> tuple[int, Counter[str]]:
    """Prunable channels of a layer, and the reasons of the rest."""
    if vector is None:
        alone = "the only channel of its layer"
        return 0, Counter({alone if layer.out_channels == 1 else "no channels known": layer.out_channels})
    labels = analysis.tracing.labels
    sizes = np.array([g.size for g in analysis.channels.groups] + [0])
    free = np.zeros(len(vector), bool)
    for column in labels.atoms(vector):
        free |= (column != FIXED) & (sizes[analysis.group_of[column]] > 1)
    reasons = Counter(labels.reason(label) or "alone in its group" for label in vector[~free].tolist())
    return int(free.sum()), reasons
