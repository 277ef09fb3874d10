"""The flags of the gate's commands and of `embed`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final, get_args

from toolchain.flag_parser import Parser
from toolchain.flag_values import (
    METRICS,
    at_least_one,
    integers,
    not_negative,
    not_negative_integer,
    numbers,
    picture_file,
    positive,
    positive_numbers,
    side_lengths,
)
from toolchain.values import Precision

GATING: Final = ("gate", "noise", "history", "embed")
MAX_REGRESSION: Final = 5.0
SECONDS: Final = 60.0
CLOCKS: Final = ("auto", "cpu", "wall")
EMULATED: Final = "qemu:cortex-a53"


def add_gate_flags(parser: Parser, command: str) -> None:
    """The flags of `gate`, `noise`, `history` or `embed`."""
    if command == "gate":
        _add_sides(parser)
        _add_rule(parser)
        _add_limits(parser)
        _add_files(parser)
    elif command == "noise":
        _add_noise(parser)
    elif command == "history":
        _add_history(parser)
    elif command == "embed":
        _add_embedding(parser)


def _add_sides(parser: Parser) -> None:
    group = parser.add_argument_group("the two sides")
    group.add_argument(
        "candidate",
        type=Path,
        help="model file (.onnx, .tflite, .pt2, ...), result folder, or record (.json)",
    )
    group.add_argument(
        "--baseline",
        required=True,
        metavar="FILE|RECORD|REVISION[:FILE]",
        help="the same, or a git revision: the candidate's file as it is there. A record is accepted where "
        "device, system, runtime and clock setting are the same",
    )
    _add_model(group)


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--target", default="host", help="device to measure on (host)")
    group.add_argument(
        "--device",
        metavar="ROUTE",
        help="the device, reached over a route: ssh://USER@HOST (`edgefit devices`)",
    )
    group.add_argument("--runtime", default="auto", help="engine (auto: the one that the files are for)")
    group.add_argument(
        "--precision", choices=get_args(Precision), default="fp32", help="of networks not exported yet (fp32)"
    )
    group.add_argument("--threads", type=at_least_one, default=1, help="threads of one inference (1)")
    group.add_argument("--arch", metavar="PACKAGE.MODULE:FUNCTION", help="builds a state dict's network")
    group.add_argument(
        "--input-shape", type=integers, action="append", metavar="1,3,32,32", help="where a file has none"
    )
    group.add_argument("--trust-pickle", action="store_true", help="let a pickled file run its code")


def _add_rule(parser: Parser) -> None:
    group = parser.add_argument_group("the rule")
    group.add_argument(
        "--max-regression",
        type=positive,
        default=MAX_REGRESSION,
        metavar="PERCENT",
        help=f"slow-down that still passes ({MAX_REGRESSION:g}); three times the device's noise where more",
    )
    group.add_argument(
        "--seconds", type=positive, default=SECONDS, help=f"time to measure at most ({SECONDS:g})"
    )
    group.add_argument(
        "--clock", choices=CLOCKS, default="auto", help="time that counts (auto: cpu on one thread)"
    )
    group.add_argument(
        "--on-inconclusive",
        choices=("inconclusive", "pass", "fail"),
        default="inconclusive",
        help="what an unclear answer counts as for the exit code (inconclusive: 10)",
    )


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("more gates, each where asked for")
    group.add_argument("--budget-ms", type=positive, metavar="MS", help="upper end of the p50's interval")
    group.add_argument("--max-mb", type=positive, metavar="MB", help="size of the file, 10^6 bytes")
    group.add_argument("--max-growth", type=not_negative, metavar="PERCENT", help="growth of the file")
    group.add_argument(
        "--max-memory-mb", type=positive, metavar="MB", help="what loading and running the file alone takes"
    )
    group.add_argument("--max-memory-growth", type=not_negative, metavar="PERCENT", help="growth of that")
    group.add_argument(
        "--max-instructions",
        type=not_negative,
        metavar="PERCENT",
        help="growth of the instructions of an inference, counted on an emulated Arm core",
    )
    group.add_argument(
        "--emulated", default=EMULATED, metavar="qemu:CORE", help=f"the core that counts them ({EMULATED})"
    )
    group.add_argument(
        "--max-fallbacks",
        type=not_negative_integer,
        metavar="N",
        help="operators that leave the accelerator, beyond the baseline's (0: none), where the runtime tells",
    )
    group.add_argument(
        "--min-agreement",
        type=positive,
        metavar="PERCENT",
        help="samples decided as the baseline does; on random inputs without --data",
    )
    group.add_argument("--max-drop", type=not_negative, metavar="POINTS", help="metric lost; needs --data")
    group.add_argument("--data", metavar="DIR|NPZ|MODULE:FUNCTION", help="as for compress")
    group.add_argument("--metric", default="top1", help=METRICS)
    group.add_argument("--mean", type=numbers, help="per channel, images in 0-1 (ImageNet's)")
    group.add_argument("--std", type=positive_numbers, help="per channel, images in 0-1 (ImageNet's)")
    group.add_argument("--resize", type=side_lengths, metavar="H,W", help="resize images (the input's size)")


def _add_files(parser: Parser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument(
        "--out", type=Path, default=Path("gate"), metavar="DIR", help="gate.json, gate.md, junit.xml (gate)"
    )
    group.add_argument("--history", type=Path, metavar="FILE", help="append a line for `edgefit history`")
    group.add_argument(
        "--annotate",
        choices=("auto", "github", "none"),
        default="auto",
        help="print workflow annotations (auto: where GITHUB_ACTIONS is true)",
    )


def _add_noise(parser: Parser) -> None:
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "model", type=Path, nargs="?", help="model to measure against itself (a small network)"
    )
    _add_model(group)
    group.add_argument("--clock", choices=CLOCKS, default="auto", help="as for gate (auto)")
    group.add_argument("--seconds", type=positive, default=SECONDS, help=f"time to measure ({SECONDS:g})")


def _add_history(parser: Parser) -> None:
    group = parser.add_argument_group("the history")
    group.add_argument("file", type=Path, help="what `edgefit gate --history FILE` appends to")
    group.add_argument("--picture", type=picture_file, metavar="FILE.svg|FILE.html", help="draw it")


def _add_embedding(parser: Parser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument("model", type=Path, help=".tflite or .onnx file")
    group.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where the sources go (here)")
    group.add_argument("--name", help="prefix of files and symbols (the model's name)")
    group.add_argument(
        "--form",
        choices=("auto", "cc", "asm", "network"),
        default="auto",
        help="data as an array, or as .incbin in an assembler file: any size at once (auto: an array up to "
        "1 MiB); network: C that computes an .onnx file, no runtime needed",
    )
    group.add_argument("--align", type=at_least_one, default=16, help="of the first byte (16)")
    group.add_argument(
        "--micro",
        action="store_true",
        help="run a .tflite file in TFLite Micro: the arena that it needs, also in the header",
    )
    group.add_argument(
        "--budget-ram",
        type=at_least_one,
        metavar="BYTES",
        help="the arena may have so many bytes: exit code 1, and nothing written, where it needs more",
    )
