"""What a network does besides its layers: operators that move, add or pass on activations, by their volume.

Nobody times them one by one: what layers leave unexplained of a measured network is divided among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from toolchain.latency.operators import CLIPS, Operator, operators
from toolchain.values import Program

_LAYERS: Final = ("dense", "pointwise", "depthwise", "grouped", "matrix")
_EFFORT: Final = {"activation": 3.0, "norm": 3.0, "softmax": 5.0}
"""Time an element, against that of an addition: an exponential takes about three times as long."""


@dataclass(frozen=True, kw_only=True)
class Mover:
    """One such operator: the graph's node, and the time an element that it reads or writes, relatively."""

    node: str
    effort: float


def movers(program: Program) -> tuple[Mover, ...]:
    """Every operator without weights that a runtime may run on its own, in graph order.

    Clamping counts even behind a convolution: ONNX Runtime passes over the convolution's output again.
    """
    found = operators(program, clips=True)
    return tuple(Mover(node=o.layer, effort=_effort(o)) for o in found if o.kind not in _LAYERS)


def _effort(operator: Operator) -> float:
    return 1.0 if operator.op in CLIPS else _EFFORT.get(operator.kind, 1.0)
