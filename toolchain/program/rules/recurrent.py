"""Recurrent layers (LSTM, GRU, RNN): one hidden width for all layers and directions of a call.

Given:  input [t, n, i] (or [n, t, i]), states [layers * directions, n, h]; for every layer and direction
        weights [g * h, i] and [g * h, h], perhaps two biases [g * h] and a projection [p, h]; g gates
Result: [t, n, directions * h], and the last states

Hidden unit j is row j of every gate. With all its weights removed it stays at 0: candidates are tanh(0), and
states begin at 0, or go with the unit where they are parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from torch.fx import Node

from toolchain.program.axes import Axes, Call, Value, plain
from toolchain.program.labels import Vector
from toolchain.program.tracing import Rule, Tracing

GATES: Final = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(t: Tracing, call: Call) -> Value:
    """Ties what a hidden unit, an output and an input are made of in every layer."""
    states: Sequence[Any] = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    if call["input"] is None or any(node.op != "get_attr" for node in call["params"] or [call.node]):
        return _whole(t, call, "packed sequences and computed weights")
    x, begin = t.axes(call["input"]), [t.axes(state) for state in states]
    t.freeze(x, range(len(x) - 1), f"{call.place} ({call.op}): steps and samples")
    for state in begin:
        t.freeze(state, range(len(state) - 1), f"{call.place} ({call.op}): layers and samples")
    output = begin[0].labels[-1]
    hidden = begin[-1].labels[-1]
    if begin[0].shape[-1] != begin[-1].shape[-1]:
        # The operator recognises a projection by unequal widths, which must therefore stay unequal.
        t.freeze(begin[-1], [len(begin[-1]) - 1], f"{call.place} ({call.op}): cells behind a projection")
    else:
        hidden = output = t.tie(output, hidden, call)
    directions = 2 if call["bidirectional"] else 1
    source = x.labels[-1]
    for number, weights in enumerate(_cells(call, directions)):
        if number and number % directions == 0:
            source = _times(output, directions)
        _cell(t, call, [t.axes(w) for w in weights], source, hidden, output)
    ends = [t.sizes.shape(value) for value in call.node.meta["val"]]
    labels = [_times(output, directions), output, hidden]
    return tuple(
        Axes(shape=s, labels=(*[None] * (len(s) - 1), v if s[-1] > 1 else None))
        for s, v in zip(ends, labels, strict=False)
    )


def matrices(call: Call) -> Iterator[Node]:
    """The weights that every step multiplies with."""
    if call.op in GATES:
        yield from (w for w in call["params"] or () if len(w.meta["val"].shape) == 2)


def _cells(call: Call, directions: int) -> Iterator[list[Node]]:
    """The weights of each layer and direction."""
    weights = list(call["params"])
    each = len(weights) // (call["num_layers"] * directions)
    for start in range(0, len(weights), each):
        yield weights[start : start + each]


def _cell(
    t: Tracing, call: Call, weights: Sequence[Axes], source: Vector, hidden: Vector, output: Vector
) -> None:
    rows = _times(hidden, GATES[call.op])
    into, back, *others = weights
    t.tie(into.labels[1], source, call)
    t.tie(back.labels[1], output, call)
    for own in (into, back, *(o for o in others if len(o) == 1)):
        t.tie(own.labels[0], rows, call)
    for projection in (o for o in others if len(o) == 2):
        t.tie(projection.labels[0], output, call)
        t.tie(projection.labels[1], hidden, call)


def _times(vector: Vector, count: int) -> Vector:
    return None if vector is None else np.tile(vector, count)


def _whole(t: Tracing, call: Call, what: str) -> Value:
    for node in call.tensors():
        axes = t.axes(node)
        t.freeze(axes, range(len(axes)), f"{call.place} ({call.op}): {what} are kept whole")
    return tuple(plain(t.sizes.shape(value)) for value in call.node.meta["val"])


RULES: Final[dict[str, Rule]] = dict.fromkeys(GATES, recurrent)
