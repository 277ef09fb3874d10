"""The flags that say where files are measured and how long."""

from __future__ import annotations

from pathlib import Path

from toolchain.flag_parser import Parser
from toolchain.flag_values import names, positive


def add_device(parser: Parser) -> None:
    """`bench`: the device and the tier."""
    group = parser.add_argument_group(
        "a device", "With one of these, or of an .onnx or .tflite file, the files alone are measured."
    )
    group.add_argument("--device", metavar="DEVICE", help="where: see `edgefit devices` (host)")
    group.add_argument(
        "--tier",
        choices=("rapid", "quick", "normal", "release", "sustained"),
        help="how long, at least: 64 runs and 6 s, 128 and 10 s, 1024 and 60 s, 600 s, 30 minutes (quick)",
    )
    group.add_argument(
        "--cadence-hz", type=positive, metavar="HZ", help="start inferences at a camera's rate (at once)"
    )
    group.add_argument(
        "--max-celsius", type=positive, metavar="C", help="wait until the device is as cool as this"
    )


def add_bundle(parser: Parser) -> None:
    """`runner bundle`: for which device, and what of it."""
    parser.add_argument("action", choices=("bundle",), help="what to do")
    group = parser.add_argument_group("the device")
    group.add_argument("--arch", required=True, metavar="ARCH", help="x86_64, aarch64 or armv7")
    group.add_argument(
        "--runtime",
        type=names,
        default=("litert", "onnxruntime"),
        metavar="NAME,...",
        help="libraries, of the versions installed here (litert,onnxruntime)",
    )
    group.add_argument("--out", type=Path, metavar="DIR", help="the folder to make (edgefit-runner-ARCH)")
