"""The flags of pruning while training: which method, for how long, and how its budget moves."""

from __future__ import annotations

import argparse

from toolchain import registry
from toolchain.flag_parser import Parser
from toolchain.flag_values import not_negative, not_negative_integer, positive
from toolchain.values import Learning


def add_learning(parser: Parser) -> None:
    """--method and what belongs to it."""
    known = Learning()
    group = parser.add_argument_group("pruning while training, before fine-tuning")
    learners = ", ".join(registry.names("toolchain.train.learners"))
    group.add_argument(
        "--method",
        default=known.method,
        metavar="NAME",
        help=f"{known.method} prunes by a criterion, without training; others train meanwhile: {learners}",
    )
    group.add_argument(
        "--method-epochs",
        type=not_negative_integer,
        default=known.epochs,
        metavar="N",
        help=f"epochs in which the method learns ({known.epochs})",
    )
    group.add_argument(
        "--transition",
        choices=("sigmoid", "linear", "exponential"),
        default=known.transition,
        help=f"how a method's budget moves from the whole network to the limit ({known.transition})",
    )
    group.add_argument(
        "--method-strength",
        type=positive,
        default=known.strength,
        metavar="FACTOR",
        help="times the weight of the method's penalty: with more of it, more is gone by the end of learning "
        f"({known.strength:g})",
    )
    group.add_argument(
        "--input-price",
        type=not_negative,
        default=known.price,
        metavar="NATS",
        help="what the whole input is worth to --method data: a part that matters less than its share leaves "
        f"the network ({known.price:g})",
    )


def learning_of(flags: argparse.Namespace) -> Learning:
    """The settings among the flags."""
    return Learning(
        method=flags.method,
        epochs=flags.method_epochs,
        transition=flags.transition,
        price=flags.input_price,
        strength=flags.method_strength,
    )
