"""Fixtures that several files share."""

from tests.boards import board
from tests.phones import phone

__all__ = ["board", "phone"]
