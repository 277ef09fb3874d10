"""What the user sees while a command works: progress on stderr, and nothing that other libraries print."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from toolchain.contracts import Progress, Silent

if TYPE_CHECKING:
    from rich.progress import TaskID


class Lines:
    """Progress as one plain line a stage, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._title = ""

    def stage(self, title: str) -> None:
        """One line, unless the same stage begins again."""
        if title != self._title:
            self._stream.write(f"{title}\n")
            self._stream.flush()
        self._title = title

    def step(self, done: int, total: int, note: str = "") -> None:
        """Not shown: a log wants stages, not steps."""


class Bars:
    """Progress as one live line with a bar, on a terminal. Finished stages stay with their time."""

    def __init__(self, progress: Any, console: Any) -> None:
        self._progress = progress
        self._console = console
        self._task: TaskID | None = None
        self._title = ""
        self._start = time.monotonic()

    def stage(self, title: str) -> None:
        """Close the running stage and show the next."""
        if title == self._title:
            return
        self.close()
        self._title, self._start = title, time.monotonic()
        self._task = self._progress.add_task(title, total=None, note="")

    def step(self, done: int, total: int, note: str = "") -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total, note=note)

    def close(self) -> None:
        """Leave a line for the finished stage."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            seconds = time.monotonic() - self._start
            self._console.print(f"{self._title}  [dim]{seconds:.1f} s[/dim]", highlight=False)
        self._task, self._title = None, ""


@contextlib.contextmanager
def progress_on(stream: TextIO, *, quiet: bool) -> Iterator[Progress]:
    """Bars on a terminal, lines elsewhere, nothing when `quiet`."""
    if quiet:
        yield Silent()
    elif not stream.isatty():
        yield Lines(stream)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        console = Console(file=stream)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("[dim]{task.fields[note]}[/dim]"),
            TimeElapsedColumn(),
        )
        with RichProgress(*columns, console=console, transient=True) as shown:
            bars = Bars(shown, console)
            yield bars
            bars.close()


@contextlib.contextmanager
def only_ours(*, debug: bool) -> Iterator[TextIO]:
    """The user's stderr; meanwhile everything that libraries and their C++ parts print is swallowed.

    File descriptors 1 and 2 point to the null device, for MLIR and absl write past `sys.stderr`.
    With `debug` nothing is swallowed.
    """
    if debug:
        yield sys.stderr
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        visible = stack.enter_context(_second_handle(sys.stderr))
        sink = _nowhere()
        sys.stdout.flush()
        sys.stderr.flush()
        stack.enter_context(_descriptors_to(sink.fileno()))
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        yield visible


@functools.cache
def _nowhere() -> TextIO:
    """The null device, open until the process ends: log handlers made meanwhile keep writing to it."""
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


@contextlib.contextmanager
def _second_handle(stream: TextIO) -> Iterator[TextIO]:
    """The same place under a descriptor of its own; the stream itself where it is no file (a test's)."""
    try:
        number = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        yield stream
        return
    with open(number, "w", encoding=stream.encoding or "utf-8", errors="replace") as copy:  # noqa: PTH123
        yield copy


@contextlib.contextmanager
def _descriptors_to(number: int) -> Iterator[None]:
    saved: list[tuple[int, int]] = []
    for which in (1, 2):
        # A closed stdout (`>&-`) has nothing to save.
        with contextlib.suppress(OSError):
            saved.append((which, os.dup(which)))
            os.dup2(number, which)
    try:
        yield
    finally:
        for which, copy in saved:
            os.dup2(copy, which)
            os.close(copy)
