"""Data for a network of smaller images: the same samples, reduced after everything else was done to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch.nn.functional import interpolate

from toolchain.contracts import Data
from toolchain.values import Preprocessing

if TYPE_CHECKING:
    from toolchain.contracts import Batch


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """`data` with its images [n, c, h, w] reduced to `size`, bilinear and antialiased.

    Means and deviations do not notice: reducing and normalising may change places.
    """

    data: Data
    size: tuple[int, int]

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
        """The whole data's with the new size; its source says from which size the images were reduced."""
        given = self.data.preprocessing
        if given is None:
            return None
        whole = f" from {given.resize[0]} x {given.resize[1]}" if given.resize else ""
        source = f"{given.source}; reduced{whole} to {self.size[0]} x {self.size[1]}, bilinear, antialiased"
        return replace(given, resize=self.size, source=source)

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
        """A hash that changes when the samples or the size do."""
        return hashlib.sha256(f"{self.data.fingerprint()} reduced to {self.size}".encode()).hexdigest()

    def train(
        self, batch_size: int, *, seed: int, augment: bool, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """One epoch of the training part, or a share of every batch."""
        return map(self._reduced, self.data.train(batch_size, seed=seed, augment=augment, part=part))

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """The validation part."""
        return map(self._reduced, self.data.validation(batch_size))

    def calibration(self, count: int) -> Batch:
        """`count` training samples, as the whole data chooses them."""
        return self._reduced(self.data.calibration(count))

    def _reduced(self, batch: Batch) -> Batch:
        inputs, target = batch
        small = (interpolate(x, self.size, mode="bilinear", antialias=True) for x in inputs)
        return tuple(small), target
