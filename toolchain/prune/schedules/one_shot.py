"""One-shot: everything goes before the first step, and all of the training follows."""

from __future__ import annotations

from typing import Final

from toolchain.contracts import Schedule


def _removed(t: float) -> float:
    del t
    return 1.0


SCHEDULE: Final = Schedule(
    name="one-shot", summary="everything at once, before the first step", removed=_removed
)
