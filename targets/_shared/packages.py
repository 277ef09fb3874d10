"""What brings each runtime of this machine: one table for all that measure, build and fetch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Package:
    """A runtime's module, distribution and pip extra of this project; where its wheel has the C library."""

    module: str
    distribution: str
    extra: str
    library: str


PACKAGES: Final[Mapping[str, Package]] = {
    "onnxruntime": Package(
        module="onnxruntime",
        distribution="onnxruntime",
        extra="onnx",
        library="onnxruntime/capi/libonnxruntime.so.*",
    ),
    "litert": Package(
        module="ai_edge_litert",
        distribution="ai-edge-litert",
        extra="tflite",
        library="ai_edge_litert/libLiteRt.so",
    ),
}
