"""Weights as they are: for sparse weights alone, whose values stay real."""

from __future__ import annotations

from typing import Final

from toolchain.train.constraint import Form, nothing_behind

FORM: Final = Form(
    name="plain",
    summary="values as they are; with --sparsity, zeros are left out",
    takes="",
    read=nothing_behind("plain"),
    begin=None,
)
