"""What the interpreter does not interpret, said by name."""

from __future__ import annotations

from toolchain.errors import ConversionError


class Refused(ConversionError):
    """An operator, a type or an option that is unknown here or has more than one reading."""


class Ambiguous(Exception):
    """Raised by an operator whose documentation has more than one reading of these values; says which."""
