"""NVIDIA Jetson boards through TensorRT: predicted until a driver reaches one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from targets._shared.calibrating import no_driver
from toolchain.contracts import Runtime, Target

TARGET: Final = Target(
    name="jetson",
    summary="NVIDIA Jetson boards through TensorRT",
    runtimes=(Runtime(name="tensorrt", format="onnx", precisions=("fp32", "fp16", "int8"), align=8),),
    connect=no_driver("jetson"),
    calibration=Path(__file__).parent / "_calibrated" / "jetson.json",
    routes=("ssh",),
)
