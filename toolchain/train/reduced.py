"""Data for a network of smaller images: the same samples, reduced after everything else was done to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch.nn.functional import interpolate

from toolchain.train.changed import Changed
from toolchain.values import Preprocessing

if TYPE_CHECKING:
    from toolchain.contracts import Batch


@dataclass(frozen=True, kw_only=True)
class Reduced(Changed):
    """`data` with its images [n, c, h, w] reduced to `size`, bilinear and antialiased.

    Means and deviations do not notice: reducing and normalising may change places.
    """

    size: tuple[int, int]

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The whole data's with the new size; its source says from which size the images were reduced."""
        given = self.data.preprocessing
        if given is None:
            return None
        whole = f" from {given.resize[0]} x {given.resize[1]}" if given.resize else ""
        source = f"{given.source}; reduced{whole} to {self.size[0]} x {self.size[1]}, bilinear, antialiased"
        return replace(given, resize=self.size, source=source)

    def fingerprint(self) -> str:
        """A hash that changes when the samples or the size do."""
        return hashlib.sha256(f"{self.data.fingerprint()} reduced to {self.size}".encode()).hexdigest()

    def changed(self, batch: Batch) -> Batch:
        """Smaller images."""
        inputs, target = batch
        small = (interpolate(x, self.size, mode="bilinear", antialias=True) for x in inputs)
        return tuple(small), target
