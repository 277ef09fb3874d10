"""Data for a network that is handed a part of its input: the same samples, cut after everything else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from toolchain.input_view import InputView, described
from toolchain.program.entrance import lit
from toolchain.train.changed import Changed
from toolchain.values import Preprocessing

if TYPE_CHECKING:
    from toolchain.contracts import Batch


@dataclass(frozen=True, kw_only=True)
class Viewed(Changed):
    """`data` of which networks see what `view` leaves of it."""

    view: InputView

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The whole data's; its source says what comes after it."""
        given = self.data.preprocessing
        return given and replace(given, source=f"{given.source}; then {described(self.view)}")

    def fingerprint(self) -> str:
        """A hash that changes when the samples or what is seen of them do."""
        seen = replace(self.view, nats=(), block_nats=())
        return hashlib.sha256(f"{self.data.fingerprint()} seen by {seen}".encode()).hexdigest()

    def changed(self, batch: Batch) -> Batch:
        """What the view leaves."""
        (whole,), target = batch
        return (handed(whole, self.view),), target


def handed(whole: Tensor, view: InputView) -> Tensor:
    """What of inputs [n, *shape] is handed to the network."""
    found = whole.flatten(1) if view.flat else whole
    if view.kept is not None:
        found = found[:, list(view.kept)]
    if view.crop is not None:
        top, left, height, width = view.crop
        found = found[:, :, top : top + height, left : left + width]
    return (found * lit(view) if view.blank else found).contiguous()
