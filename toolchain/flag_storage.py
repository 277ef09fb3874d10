"""The flags of storing weights in fewer bits than their files hold."""

from __future__ import annotations

import argparse
from pathlib import Path

from toolchain import registry
from toolchain.flag_parser import Parser
from toolchain.flag_values import at_least_one, not_negative_integer, share
from toolchain.settings import Storage


def add_storage(parser: Parser) -> None:
    """--store and what belongs to it."""
    known = Storage(form="")
    forms = ", ".join(registry.names("toolchain.train.forms"))
    schedules = ", ".join(registry.names("toolchain.prune.schedules"))
    group = parser.add_argument_group(
        "storage: each file packed small as well; `edgefit restore` unpacks it",
        "No budget is needed. It saves space, not time; zeros help only runtimes made for sparse weights.",
    )
    group.add_argument(
        "--store",
        metavar="FORM",
        help=f"what weights become: {forms}; palette:5 has 2^5 values, fixed:2.6 that many bits",
    )
    group.add_argument(
        "--sparsity",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="of all weights, that become zero first (0)",
    )
    group.add_argument(
        "--sparsity-schedule",
        default=known.schedule,
        metavar="NAME",
        help=f"when they become zero in fine-tuning: {schedules} ({known.schedule})",
    )
    group.add_argument(
        "--palette-channels",
        type=at_least_one,
        metavar="N",
        help="output channels that share a palette (all of a layer)",
    )
    group.add_argument(
        "--rounding",
        choices=("nearest", "stochastic"),
        default=known.rounding,
        help=f"to fixed point, of weights in fine-tuning ({known.rounding})",
    )
    group.add_argument(
        "--store-epochs",
        type=not_negative_integer,
        default=known.epochs,
        metavar="N",
        help=f"epochs of fine-tuning for zeros, and as many for shared weights ({known.epochs})",
    )


def add_restore(parser: Parser) -> None:
    """What `restore` reads and writes."""
    parser.add_argument("stored", type=Path, metavar="FILE.stored", help="a packed model file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the model goes (FILE)")


def storage_of(flags: argparse.Namespace) -> Storage | None:
    """The settings among the flags; None where nothing is to be stored."""
    if flags.store is None and flags.sparsity == 0:
        return None
    return Storage(
        form=flags.store or "plain",
        sparsity=flags.sparsity,
        schedule=flags.sparsity_schedule,
        run=flags.palette_channels,
        rounding=flags.rounding,
        epochs=flags.store_epochs,
    )
