"""Weights as they are: for sparse weights alone, whose values stay real."""

from __future__ import annotations

from typing import Final

from toolchain.train.constraint import Form


def _read(text: str) -> None:
    if text:
        raise ValueError("plain takes nothing behind its name")


FORM: Final = Form(
    name="plain",
    summary="values as they are; with --sparsity, zeros are left out",
    takes="",
    read=_read,
    begin=None,
)
