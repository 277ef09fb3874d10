"""The flags that say for which device: planned for, predicted, measured there and how long."""

from __future__ import annotations

import argparse
from pathlib import Path

from toolchain.errors import InputError
from toolchain.flag_parser import Parser
from toolchain.flag_values import at_least_one, names, positive, precisions


def add_target(parser: Parser, command: str) -> None:
    """`bench`, `compress` and `plan`: the target, and how it runs networks."""
    group = parser.add_argument_group("the target")
    if command == "bench":
        group.add_argument("--target", default="host", help="device to measure, see `edgefit targets` (host)")
    else:
        group.add_argument(
            "--target",
            type=names,
            default=("host",),
            metavar="NAME,...",
            help="device to fit, see `edgefit targets` (host); every target of a list with every budget",
        )
    group.add_argument("--runtime", default="auto", help="engine on the target (auto: the best one)")
    group.add_argument(
        "--precision",
        type=precisions,
        default=("fp32", "int8", "mixed"),
        metavar="fp32,int8,mixed",
        help="precisions to choose from (all three); mixed: int8, the layers that it hurts most in float",
    )
    group.add_argument("--threads", type=at_least_one, default=1, help="threads of one inference (1)")
    if command != "bench":
        _add_calibration(group)
        group.add_argument(
            "--device",
            metavar="DEVICE",
            help="plan and measure on this one (this machine), see `edgefit devices`; an emulated one checks",
        )


def device_of(flags: argparse.Namespace) -> str | None:
    """The device that `compress` and `plan` are to use; None for this machine, or where there is none.

    Raises:
        InputError: one device for several targets.
    """
    device: str | None = flags.device
    if device is not None and len(set(flags.targets)) > 1:
        raise InputError("one --device cannot be several targets", hint="name one --target")
    return None if device == "host" and flags.target == "host" else device


def add_prediction(parser: Parser, command: str) -> None:
    """`predict` and `calibrate`: the target, and which of its latency models."""
    group = parser.add_argument_group("the target")
    group.add_argument(
        "--target",
        required=True,
        metavar="NAME[:VARIANT]",
        help="device, and which one: see `edgefit targets`",
    )
    group.add_argument("--runtime", default="auto", help="engine, or engine@version (auto: best evidence)")
    group.add_argument(
        "--precision", type=precisions, default=(), metavar="fp16", help="precision (best evidence)"
    )
    group.add_argument("--threads", type=at_least_one, help="threads of one inference (best evidence)")
    if command == "predict":
        _add_calibration(group)
        group.add_argument(
            "--require-measured", action="store_true", help="exit 1: a prediction is no measurement"
        )


def _add_calibration(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="for a target that is not at hand: the model that `edgefit calibrate` wrote",
    )


def add_device(parser: Parser) -> None:
    """`bench`: the device and the tier."""
    group = parser.add_argument_group(
        "a device",
        "With one of these, or of an .onnx, .tflite or .mlpackage file, the files alone are measured.",
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
