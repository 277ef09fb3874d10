"""Which of several processes this one is, as `torchrun` tells it; free of heavy imports.

The first (rank 0) does the whole run, the others help it to train and are silent.
"""

from __future__ import annotations

import os


def processes() -> int:
    """How many there are; 1 where nothing says so."""
    return _number("WORLD_SIZE", 1)


def helping() -> bool:
    """Whether this one only helps."""
    return processes() > 1 and _number("RANK", 0) > 0


def place() -> int:
    """The number of this process among those of its machine."""
    return _number("LOCAL_RANK", 0)


def neighbours() -> int:
    """How many of the processes are on this machine."""
    return _number("LOCAL_WORLD_SIZE", processes())


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else otherwise
