"""The state of a fine-tuning run between epochs, on disk: written atomically, read without pickle code."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from toolchain.contracts import Data
from toolchain.errors import InputError
from toolchain.program.capture import fingerprint
from toolchain.train.constraint import Constraint
from toolchain.train.gradual import Cut, Removal
from toolchain.train.metric import Metric
from toolchain.values import Program, Training

_FILE: Final = "checkpoint.pt"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch: mean training loss, validation metric, last learning rate, wall-clock seconds.

    `left` is the share of the original's parameters still there, where a schedule removes them in training.
    """

    number: int
    loss: float
    metric: float
    lr: float
    seconds: float
    left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """After `len(history)` epochs: the latest and the best weights, the optimizer, and what is cut by now.

    `best` is empty while no epoch has ended at the final widths. Where nothing is removed in training, `cut`
    is empty: the weights are those of the program handed in. `average` is the moving average of the weights.
    """

    history: tuple[Epoch, ...]
    weights: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    best: Mapping[str, Tensor]
    best_value: float
    best_epoch: int
    cut: Cut = field(default_factory=Cut)
    average: Mapping[str, Tensor] = field(default_factory=dict)


def run_key(
    program: Program,
    teacher: Program | None,
    data: Data,
    metric: Metric,
    training: Training,
    removal: Removal | None = None,
    constraint: Constraint | None = None,
) -> str:
    """What a checkpoint belongs to: continuing with anything else would mix two runs."""
    original = "" if teacher is None else fingerprint(teacher)
    parts = [fingerprint(program), original, data.fingerprint(), metric.name, repr(training)]
    if removal is not None:
        parts += [removal.schedule.name, removal.criterion.name, str(removal.pinned)]
    if constraint is not None:
        parts.append(constraint.identity)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def write_checkpoint(folder: Path, key: str, state: Checkpoint) -> None:
    """Replace the folder's checkpoint; a half-written one is never seen."""
    content = {
        "key": key,
        "history": [asdict(epoch) for epoch in state.history],
        "weights": dict(state.weights),
        "optimizer": state.optimizer,
        "best": dict(state.best),
        "best_value": state.best_value,
        "best_epoch": state.best_epoch,
        "average": dict(state.average),
        "cut": {"keep": dict(state.cut.keep), "dropped": state.cut.dropped},
    }
    write_state(folder, content)


def write_state(folder: Path, content: dict[str, Any]) -> None:
    """Replace the state in the folder: tensors and plain values, `key` among them."""
    path = folder / _FILE
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        torch.save(content, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot write the checkpoint {path}: {error}", hint="free some space, or choose another --out"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(folder: Path, key: str) -> Checkpoint | None:
    """The folder's checkpoint; None where there is none.

    Raises:
        InputError: unreadable, or of a run with another network, data or settings.
    """

    def state(content: dict[str, Any]) -> Checkpoint:
        history = tuple(Epoch(**epoch) for epoch in content["history"])
        return Checkpoint(history=history, cut=Cut(**content["cut"]), **{k: content[k] for k in _KEPT})

    return read_state(folder, key, state)


def read_state(folder: Path, key: str, made: Callable[[dict[str, Any]], T]) -> T | None:
    """What `made` makes of the state in the folder; None where there is none.

    Raises:
        InputError: unreadable, or with another key.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = made(content)
        known = content["key"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(f"cannot read the checkpoint {path}", hint="delete it to start again") from error
    if known != key:
        raise InputError(
            f"the checkpoint {path} belongs to another network, data or settings",
            hint="delete it, or repeat the flags of the interrupted run",
        )
    return state


_KEPT: Final = ("weights", "optimizer", "best", "best_value", "best_epoch", "average")
