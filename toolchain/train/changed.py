"""Data of which a network sees something else: the same samples, changed after everything else was done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.contracts import Data
from toolchain.values import Preprocessing

if TYPE_CHECKING:
    from toolchain.contracts import Batch


@dataclass(frozen=True, kw_only=True)
class Changed(ABC):
    """`data` with every batch changed; a subclass's own fields say how, and are all that it has."""

    data: Data

    @abstractmethod
    def changed(self, batch: Batch) -> Batch:
        """What networks see of a batch."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing | None:
        """The whole data's, which says what comes after it, too."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when the samples or what is done to them do."""

    @property
    def name(self) -> str:
        """The name of the whole data."""
        return self.data.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number."""
        return self.data.classes

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

    def train(
        self, batch_size: int, *, seed: int, augment: bool, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """One epoch of the training part, or a share of every batch."""
        return map(self.changed, self.data.train(batch_size, seed=seed, augment=augment, part=part))

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """The validation part."""
        return map(self.changed, self.data.validation(batch_size))

    def calibration(self, count: int) -> Batch:
        """`count` training samples, as the whole data chooses them."""
        return self.changed(self.data.calibration(count))
