"""iPhones through Core ML: predicted where none is at hand, measured by the app of `Runner` where one is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from targets._shared.calibrating import no_driver
from toolchain.contracts import Runtime, Target

TARGET: Final = Target(
    name="iphone",
    summary="iPhones through Core ML, neural engine",
    runtimes=(Runtime(name="coreml", format="coreml", precisions=("fp16", "int8", "int8-weights"), align=8),),
    connect=no_driver("iphone"),
    calibration=Path(__file__).parents[1] / "_calibrated" / "iphone.json",
    routes=("iphone",),
)
