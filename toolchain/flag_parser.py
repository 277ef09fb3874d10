"""The argument parser of every command: complaints are `InputError`s that name the nearest known flag."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from toolchain.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are `InputError`s, with a suggestion for a misspelt flag."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise InputError(message, hint=f"see {self.prog} --help")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse; an unknown flag is answered with the nearest known one."""
        found, unknown = self.parse_known_args(words)
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._known(), n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"unknown argument '{unknown[0]}'", hint=f"{hint}see {self.prog} --help")
        return found

    def _known(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings]
