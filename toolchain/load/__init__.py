"""A file becomes a Program: recognised by its content, opened without running foreign code."""

from toolchain.load.opening import load

__all__ = ["load"]
