"""The one error tree. Each leaf carries the exit code that the command line documents.

Exit 0 is success and exit 1 means "finished, but a check failed" (a value in the report, never an exception).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from toolchain.values import Measurement, PrunePlan


class CompressError(Exception):
    """What went wrong and where, in one line; `hint` says what to do.

    Args:
        message: what and where, one line, no trailing period needed.
        hint: what the user can do about it, one line; empty when there is nothing to advise.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(CompressError):
    """A file, flag or value handed in is unusable (exit 2)."""

    exit_code: ClassVar[int] = 2


class UnsupportedError(CompressError):
    """The input is sound, but this program cannot treat it (exit 3)."""

    exit_code: ClassVar[int] = 3


class BudgetError(CompressError):
    """No plan reaches the budget (exit 4). Carries the best plan found.

    Args:
        message: what was not reached, and how near the best plan came.
        hint: what to allow.
        plan: the plan that came closest, with its estimate.
        measured: its latency; None where it was not measured.
    """

    exit_code: ClassVar[int] = 4

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        plan: PrunePlan | None = None,
        measured: Measurement | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.plan = plan
        self.measured = measured


class ConversionError(CompressError):
    """A converter, quantizer or reader of an exported file failed (exit 5)."""

    exit_code: ClassVar[int] = 5


class DeviceError(CompressError):
    """The target device could not be reached or did not finish a measurement (exit 6)."""

    exit_code: ClassVar[int] = 6


class Interrupted(CompressError):
    """The user pressed Ctrl-C; finished stages and checkpoints are kept (exit 130)."""

    exit_code: ClassVar[int] = 130
