"""Cameras and small boards with Cortex-A53 to A76 CPUs: predicted until a driver reaches one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from targets._shared.calibrating import no_driver
from toolchain.contracts import Runtime, Target

TARGET: Final = Target(
    name="traffic-camera",
    summary="boards with Cortex-A53, A55, A72, A73 and A76 CPUs",
    runtimes=(
        Runtime(name="litert", format="tflite", precisions=("fp32", "int8"), align=8),
        Runtime(name="ncnn", format="onnx", precisions=("fp32", "fp16", "int8"), align=8),
    ),
    connect=no_driver("traffic-camera"),
    calibration=Path(__file__).parent / "_calibrated" / "traffic_camera.json",
    routes=("ssh",),
)
