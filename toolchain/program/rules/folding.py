"""Operators that fold channels into space and back, or shuffle them."""

from __future__ import annotations

from typing import Final

import numpy as np

from toolchain.program.axes import Call, Value
from toolchain.program.rules.shuffling import Shuffle, shuffled, transposed_positions
from toolchain.program.tracing import Rule, Tracing


def pixel_shuffle(t: Tracing, call: Call) -> Value:
    """Given: [..., c * r * r, h, w]. Result: [..., c, h * r, w * r]; the r * r channels go together."""
    x = t.axes(call["self"])
    factor = call["upscale_factor"]
    channels = x.shape[-3] // factor**2
    labels = dict(enumerate(x.labels))
    t.freeze(x, [len(x) - 2, len(x) - 1], f"{call.place}: rearranged")
    vector = labels[len(x) - 3]
    if vector is not None:
        block = vector.reshape(channels, factor**2)
        t.tie(np.repeat(block[:, 0], factor**2), vector, call)
        labels[len(x) - 3] = block[:, 0].copy()
    return t.yields(call.node, labels)


def pixel_unshuffle(t: Tracing, call: Call) -> Value:
    """Given: [..., c, h * r, w * r]. Result: [..., c * r * r, h, w]."""
    x = t.axes(call["self"])
    labels = dict(enumerate(x.labels))
    t.freeze(x, [len(x) - 2, len(x) - 1], f"{call.place}: rearranged")
    if labels[len(x) - 3] is not None:
        labels[len(x) - 3] = np.repeat(labels[len(x) - 3], call["downscale_factor"] ** 2)  # type: ignore[arg-type]
    return t.yields(call.node, labels)


def channel_shuffle(t: Tracing, call: Call) -> Value:
    """Given: [n, g * k, ...]. Result: channel j * g + i is the former i * k + j."""
    x = t.axes(call["self"])
    if x.labels[1] is None:
        return x
    permutation = transposed_positions(x.shape[1], call["groups"])
    t.shuffles[call.node] = Shuffle(source=call["self"], dim=1, permutation=permutation)
    return shuffled(x, t.shuffles[call.node])


def unfold_image(t: Tracing, call: Call) -> Value:
    """Given: [n, c, h, w]. Result: [n, c * kernel elements, positions]."""
    x = t.axes(call["self"])
    t.freeze(x, range(len(x) - 2, len(x)), f"{call.place}: unfolded")
    labels = dict(enumerate(x.labels[:-2]))
    area = call["kernel_size"][0] * call["kernel_size"][1]
    at = len(x) - 3
    if labels.get(at) is not None:
        labels[at] = np.repeat(labels[at], area)  # type: ignore[arg-type]
    return t.yields(call.node, labels)


def fold_image(t: Tracing, call: Call) -> Value:
    """Given: [n, c * kernel elements, positions]. Result: [n, c, h, w]."""
    x = t.axes(call["self"])
    t.freeze(x, [len(x) - 1], f"{call.place}: folded")
    area = call["kernel_size"][0] * call["kernel_size"][1]
    at = len(x) - 2
    labels = dict(enumerate(x.labels[:-1]))
    vector = labels[at]
    if vector is not None:
        block = vector.reshape(-1, area)
        t.tie(np.repeat(block[:, 0], area), vector, call)
        labels[at] = block[:, 0].copy()
    return t.yields(call.node, labels)


def unfold_dim(t: Tracing, call: Call) -> Value:
    """Sliding windows along one dimension, which stays."""
    x = t.axes(call["self"])
    dim = x.dim(call["dimension"])
    t.freeze(x, [dim], f"{call.place}: unfolded")
    return t.yields(call.node, {d: v for d, v in enumerate(x.labels) if d != dim})


RULES: Final[dict[str, Rule]] = {
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
    "im2col": unfold_image,
    "col2im": fold_image,
    "unfold": unfold_dim,
}
