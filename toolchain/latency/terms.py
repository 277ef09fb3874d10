"""What an operator costs, as amounts that a calibrated model multiplies with its milliseconds per amount.

A network's latency is the sum over its operators of arithmetic (by kind of kernel), memory traffic and
calls, as in roofline models taken additively, plus one overhead an inference. Channels are rounded up to
the multiple that the device's kernels work in: a width in between costs as much as the next multiple.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from toolchain.latency.operators import Operator

GIGA: Final = 1e-9
MEGA: Final = 1e-6
KILO: Final = 1e-3
STEM_CHANNELS: Final = 4
INFERENCE: Final = "inference"
TERMS: Final = {
    "gemm.macs": "10^9 multiply-accumulates of dense kernels: convolutions and matrix products",
    "dense.macs": "the same, of k x k convolutions alone",
    "pointwise.macs": "the same, of 1 x 1 convolutions alone",
    "matrix.macs": "the same, of linear layers on several rows alone",
    "stem.macs": "10^9 multiply-accumulates of convolutions on up to 4 channels",
    "grouped.macs": "10^9 multiply-accumulates of grouped convolutions",
    "depthwise.macs": "10^9 multiply-accumulates of depthwise convolutions",
    "product.macs": "10^9 multiply-accumulates between activations (attention)",
    "scores": "10^6 scores that a softmax normalises",
    "weights": "10^6 weights read",
    "dense.traffic": "10^6 activations that dense kernels read and write",
    "depthwise.traffic": "10^6 activations that depthwise convolutions read and write",
    "activation.traffic": "10^6 activations through functions that are not fused",
    "norm.traffic": "10^6 activations that layer or group norms read and write",
    "other.traffic": "10^6 activations that sums, pools and data movement read and write",
    "calls": "10^3 kernel calls of convolutions and matrix products",
    "activation.calls": "10^3 calls of activation functions that are not fused",
    "other.calls": "10^3 calls of sums, pools, norms and data movement",
    "joined": "10^3 tensors that concatenations copy",
}
"""The amounts, and the unit that a coefficient's milliseconds are for."""


def amounts(operator: Operator, align: int = 1) -> Mapping[str, float]:
    """The operator's amount of each term that it has; channels rounded up to multiples of `align`."""
    traffic = (operator.inputs + operator.outputs) * MEGA
    kind = operator.kind
    if kind in ("dense", "pointwise", "matrix", "grouped", "depthwise", "product"):
        return _kernel(operator, traffic, align)
    if kind == "activation":
        return {"activation.traffic": traffic, "activation.calls": KILO}
    found = {"other.calls": KILO, "other.traffic": traffic}
    if kind == "softmax":
        found["scores"] = operator.outputs * MEGA
    elif kind == "norm":
        found = {"other.calls": KILO, "norm.traffic": traffic}
    elif operator.op in ("cat", "stack"):
        found["joined"] = operator.operands * KILO
    return found


def _kernel(operator: Operator, traffic: float, align: int) -> dict[str, float]:
    found = {"calls": KILO, "weights": operator.weights * MEGA}
    kind = operator.kind
    macs = operator.macs * GIGA
    if kind == "depthwise":
        return {**found, "depthwise.macs": macs, "depthwise.traffic": traffic}
    if kind == "product":
        scores = operator.rows * MEGA if operator.op == "scaled_dot_product_attention" else 0.0
        return {**found, "product.macs": macs, "scores": scores, "dense.traffic": traffic}
    if operator.rows == 1 and kind in ("pointwise", "matrix"):
        return found  # A vector times a matrix: reading the weights is all of it.
    if kind == "dense" and operator.in_channels <= STEM_CHANNELS:
        return {**found, "stem.macs": macs, "dense.traffic": traffic}
    if kind == "grouped":
        return {**found, "grouped.macs": macs, "dense.traffic": traffic}
    macs *= rounded(operator.out_channels, align) / operator.out_channels
    return {**found, "gemm.macs": macs, f"{kind}.macs": macs, "dense.traffic": traffic}


def rounded(width: int, align: int) -> int:
    """The next multiple."""
    return -(-width // align) * align
