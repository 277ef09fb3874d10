"""Calling other people's converters: silent, missing packages named, failures translated in one place."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import IO, Any, TextIO

from toolchain.errors import CompressError, ConversionError, InputError

_SHOWN: int = 300


def require(packages: Sequence[str], *, extra: str, purpose: str) -> None:
    """Import `packages` quietly.

    Raises:
        InputError: one is not installed or cannot be loaded; the hint has the install command.
    """
    for package in packages:
        try:
            with quiet():
                importlib.import_module(package)
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == package
            state = ", which is not installed" if absent else f", which does not load: {first_line(error)}"
            raise InputError(
                f"{purpose} needs the package '{package}'{state}",
                hint=f"pip install 'edgefit[{extra}]'",
            ) from error


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's text, shortened; its type where it has no text."""
    lines = (line.strip() for line in str(error).splitlines())
    text = next((line for line in lines if line), type(error).__name__)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


@contextlib.contextmanager
def translated(subject: str, *, hint: str = "") -> Iterator[None]:
    """Run foreign code silently; whatever it raises becomes one ConversionError that names `subject`.

    Errors of the disk (OSError) and our own pass unchanged.

    Raises:
        ConversionError: the deepest cause in one line.
    """
    try:
        with quiet():
            yield
    except (CompressError, OSError):
        raise
    except Exception as error:
        # Converters raise whatever their dependencies do, down to bare Exception: there is no common class.
        raise ConversionError(f"{subject} failed: {_cause(error)}", hint=hint) from error


def _cause(error: BaseException) -> str:
    """The text of the deepest explicit cause, after the operator that the outer errors name."""
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    named = next((line.strip() for line in str(error).splitlines() if "target:" in line or "op " in line), "")
    text = f"{type(deepest).__name__}: {first_line(deepest)}"
    return f"{text} (at {named[:120]})" if named and named not in text else text


class _Gate(io.TextIOBase):
    """A text stream that swallows what one thread writes and hands through what the others write.

    A progress bar is drawn by its own thread while a converter runs.
    """

    def __init__(self, owner: int, through: TextIO) -> None:
        self._owner = owner
        self._through = through

    def write(self, text: str) -> int:
        """Drop the owner's text, pass on everybody else's."""
        return len(text) if threading.get_ident() == self._owner else self._through.write(text)

    def flush(self) -> None:
        """Flush the stream behind."""
        self._through.flush()

    def isatty(self) -> bool:
        """As the stream behind."""
        return self._through.isatty()

    def fileno(self) -> int:
        """As the stream behind."""
        return self._through.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the stream behind."""
        return str(self._through.encoding)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that the code inside prints, logs or warns leaves the process, C++ libraries included."""
    owner = threading.get_ident()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.ERROR)
        stack.callback(logging.disable, level)
        sink = stack.enter_context(tempfile.TemporaryFile())
        for number, name in ((1, "stdout"), (2, "stderr")):
            stream = getattr(sys, name)
            if stream is not None:
                stream.flush()
            through = _divert(stack, number, stream, sink)
            setattr(sys, name, _Gate(owner, through))
            stack.callback(setattr, sys, name, stream)
        yield


def _divert(stack: contextlib.ExitStack, number: int, stream: Any, sink: IO[bytes]) -> TextIO:
    """Point the descriptor at `sink` until the stack unwinds; gives a stream that reaches its old end."""
    try:
        saved = os.dup(number)
    except OSError:  # the descriptor is closed: nothing can leak
        return stream if stream is not None else io.StringIO()
    os.dup2(sink.fileno(), number)
    stack.callback(os.close, saved)
    stack.callback(os.dup2, saved, number)
    if stream is None or _number(stream) != number:
        return io.StringIO() if stream is None else stream
    return stack.enter_context(open(os.dup(saved), "w", encoding=stream.encoding, buffering=1))  # noqa: PTH123


def _number(stream: Any) -> int:
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return -1
