"""Data for a network that is handed a part of its input: the same samples, cut after everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from toolchain.contracts import Data
from toolchain.input_view import InputView, described
from toolchain.program.entrance import lit
from toolchain.values import Preprocessing

if TYPE_CHECKING:
    from toolchain.contracts import Batch


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """`data` of which networks see what `view` leaves of it."""

    data: Data
    view: InputView

    @property
    def name(self) -> str:
        """The name of the whole data."""
        return self.data.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number."""
        return self.data.classes

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The whole data's; its source says what comes after it."""
        given = self.data.preprocessing
        return given and replace(given, source=f"{given.source}; then {described(self.view)}")

    @property
    def skipped(self) -> tuple[str, ...]:
        """Images that could not be read."""
        return self.data.skipped

    @property
    def train_size(self) -> int:
        """Number of training samples."""
        return self.data.train_size

    @property
    def validation_size(self) -> int:
        """Number of validation samples."""
        return self.data.validation_size

    def fingerprint(self) -> str:
        """A hash that changes when the samples or what is seen of them do."""
        seen = replace(self.view, nats=(), block_nats=())
        return hashlib.sha256(f"{self.data.fingerprint()} seen by {seen}".encode()).hexdigest()

    def train(
        self, batch_size: int, *, seed: int, augment: bool, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """One epoch of the training part, or a share of every batch."""
        return map(self._seen, self.data.train(batch_size, seed=seed, augment=augment, part=part))

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """The validation part."""
        return map(self._seen, self.data.validation(batch_size))

    def calibration(self, count: int) -> Batch:
        """`count` training samples, as the whole data chooses them."""
        return self._seen(self.data.calibration(count))

    def _seen(self, batch: Batch) -> Batch:
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
