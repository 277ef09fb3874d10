"""Android phones, on their CPU: predicted where none is at hand, measured over adb where one is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from targets._shared.calibrating import no_driver
from toolchain.contracts import Runtime, Target

TARGET: Final = Target(
    name="android",
    summary="Android phones, CPU",
    runtimes=(
        Runtime(name="litert", format="tflite", precisions=("fp32", "int8"), align=8),
        Runtime(name="ncnn", format="onnx", precisions=("fp32", "fp16", "int8"), align=8),
        Runtime(name="paddle-lite", format="onnx", precisions=("fp32",), align=8),
    ),
    connect=no_driver("android"),
    calibration=Path(__file__).parent / "_calibrated" / "android.json",
    routes=("adb",),
)
