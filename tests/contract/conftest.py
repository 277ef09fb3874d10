"""Fixtures that several files share."""

from tests.boards import board

__all__ = ["board"]
