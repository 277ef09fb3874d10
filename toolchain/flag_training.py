"""The flags of fine-tuning."""

from __future__ import annotations

import argparse
from pathlib import Path

from toolchain import registry
from toolchain.flag_parser import Parser
from toolchain.flag_values import at_least_one, not_negative_integer, positive, share
from toolchain.settings import Training


def add_training(parser: Parser) -> None:
    """Epochs, learning rate, teacher, and how an interrupted run goes on."""
    known = Training()
    group = parser.add_argument_group("fine-tuning, with the original network as teacher")
    group.add_argument(
        "--epochs", type=not_negative_integer, default=known.epochs, help=f"0 for none ({known.epochs})"
    )
    schedules = ", ".join(registry.names("toolchain.prune.schedules"))
    group.add_argument(
        "--schedule",
        default=known.schedule,
        metavar="NAME",
        help=f"when what the plan removes goes: {schedules} ({known.schedule}: before the first step)",
    )
    group.add_argument("--lr", type=positive, help="highest learning rate (by the depth of the cut)")
    group.add_argument(
        "--batch-size", type=at_least_one, default=known.batch_size, help=f"({known.batch_size})"
    )
    _add_teacher(group, known)
    _add_steps(group, known)
    group.add_argument(
        "--log", type=Path, metavar="FILE.csv", help="add a line for every epoch of any training"
    )
    group.add_argument("--no-augment", action="store_true", help="no random crops and flips of images")
    group.add_argument("--resume", action="store_true", help="continue after an interruption")
    group.add_argument("--finish", action="store_true", help="finish with the best epoch so far")


def _add_teacher(group: argparse._ArgumentGroup, known: Training) -> None:
    group.add_argument(
        "--temperature",
        type=positive,
        default=known.temperature,
        help=f"softness of the teacher's answers ({known.temperature})",
    )
    group.add_argument(
        "--distil-weight",
        type=share,
        default=known.distil_weight,
        help=f"share of the teacher in the loss, 0-1 ({known.distil_weight})",
    )


def _add_steps(group: argparse._ArgumentGroup, known: Training) -> None:
    """What happens in a step: its rate, loss and gradient, and the average over steps."""
    group.add_argument(
        "--lr-schedule",
        choices=("cosine", "one-cycle"),
        default=known.rate,
        help=f"course of the learning rate: a short rise, or a third of the way up ({known.rate})",
    )
    group.add_argument(
        "--label-smoothing",
        type=share,
        default=known.smoothing,
        metavar="SHARE",
        help="spread over all classes (0)",
    )
    group.add_argument(
        "--ema",
        type=share,
        default=known.average,
        metavar="DECAY",
        help="judge and deliver a moving average of the weights, e.g. 0.999 (none)",
    )
    group.add_argument(
        "--clip",
        type=positive,
        default=known.clip,
        metavar="NORM",
        help=f"largest gradient norm ({known.clip:g})",
    )
    group.add_argument(
        "--mixed-precision",
        action="store_true",
        help="compute in bfloat16 where a GPU has it; nothing elsewhere",
    )


def training_of(flags: argparse.Namespace) -> Training:
    """The fine-tuning settings among the flags."""
    return Training(
        epochs=flags.epochs,
        batch_size=flags.batch_size,
        temperature=flags.temperature,
        distil_weight=flags.distil_weight,
        augment=not flags.no_augment,
        seed=flags.seed,
        schedule=flags.schedule,
        rate=flags.lr_schedule,
        clip=flags.clip,
        smoothing=flags.label_smoothing,
        average=flags.ema,
        half=flags.mixed_precision,
        log=flags.log,
    )
