"""Labelled samples as arrays: shuffling, augmentation and normalisation, a whole batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from toolchain.values import Preprocessing

if TYPE_CHECKING:
    from toolchain.contracts import Batch

_PADDING: Final = 1 / 8
"""Padding of the random crop as a share of the size: 4 pixels at 32 x 32, as is usual for CIFAR."""
_ORDER: Final = 20_000
"""Seed of the fixed orders (validation, calibration)."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Samples of one part. `fetch(indices)` gives them: images uint8 [n, h, w, c], other arrays as stored."""

    fetch: Callable[[NDArray[np.int64]], NDArray[Any]]
    labels: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Data of one input tensor a sample. `images` says that `fetch` gives uint8 pixels to be normalised.

    Augmentation is a random crop out of the zero-padded image and, where `flips`, a horizontal flip.
    """

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing | None
    skipped: tuple[str, ...]
    train_part: Part
    validation_part: Part
    images: bool
    flips: bool
    identity: str

    @property
    def train_size(self) -> int:
        """Number of training samples."""
        return len(self.train_part.labels)

    @property
    def validation_size(self) -> int:
        """Number of validation samples."""
        return len(self.validation_part.labels)

    def fingerprint(self) -> str:
        """A hash that changes when the samples, their split or their preprocessing do."""
        parts = (self.identity, repr(self.preprocessing), repr(self.classes))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def train(
        self, batch_size: int, *, seed: int, augment: bool, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """One epoch of the training part, shuffled by `seed`; of a share of it no more than that is read.

        A last batch of one sample is left out, another one each epoch: batch norm has no variance for it.
        """
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.train_size, generator=random).numpy()
        if len(order) % batch_size == 1 and len(order) > 1:
            order = order[:-1]
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            mine = share(len(chosen), part)
            yield self._batch(self.train_part, chosen, random if augment and self.images else None, mine)

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """The validation part, in a fixed order that mixes the classes."""
        order = spread(self.validation_part.labels)
        for start in range(0, len(order), batch_size):
            yield self._batch(self.validation_part, order[start : start + batch_size], None)

    def calibration(self, count: int) -> Batch:
        """`count` training samples (all, if fewer), fixed, spread over the classes, not augmented."""
        return self._batch(self.train_part, spread(self.train_part.labels)[:count], None)

    def _batch(
        self,
        part: Part,
        chosen: NDArray[np.int64],
        random: torch.Generator | None,
        mine: slice = slice(None),
    ) -> Batch:
        """Those of the `chosen` samples that are `mine`; random draws are those of all."""
        read = chosen[mine] if len(chosen[mine]) else chosen[:1]
        values = torch.from_numpy(np.ascontiguousarray(part.fetch(read)))
        if random is not None and self.images:
            values = augmented(values, random, flips=self.flips, of=(len(chosen), mine))
        values = values[: len(chosen[mine])]
        target = torch.from_numpy(part.labels[chosen[mine]])
        return (normalised(values, self.preprocessing) if self.images else values,), target


def share(count: int, part: tuple[int, int]) -> slice:
    """Which of `count` samples belong to a part (number, of how many)."""
    number, parts = part
    return slice(number * count // parts, (number + 1) * count // parts)


def share_of(batch: Batch, part: tuple[int, int]) -> Batch:
    """A part's samples of a batch."""
    inputs, target = batch
    mine = share(len(target), part)
    return tuple(x[mine] for x in inputs), target[mine]


def without_lone(batches: Iterable[Batch]) -> Iterator[Batch]:
    """All but batches of one sample after larger ones: batch norm has no variance for them."""
    several = False
    for batch in batches:
        if len(batch[1]) > 1 or not several:
            several = len(batch[1]) > 1 or several
            yield batch


def spread(labels: NDArray[Any]) -> NDArray[np.int64]:
    """All positions in a fixed order in which every beginning holds the classes about equally often."""
    count = len(labels)
    random = np.random.default_rng(_ORDER)
    shuffled = random.permutation(count)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return shuffled
    drawn = labels[shuffled]
    by_class = np.argsort(drawn, kind="stable")
    sizes = np.unique(drawn, return_counts=True)[1]
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    round_of = np.arange(count) - starts
    return shuffled[by_class[np.argsort(round_of, kind="stable")]]


def augmented(
    pixels: Tensor, random: torch.Generator, *, flips: bool, of: tuple[int, slice] | None = None
) -> Tensor:
    """Random crops of `pixels` [n, h, w, c] out of their zero-padded selves, half of them mirrored.

    `of` says that they are some of so many, for all of which numbers are drawn.
    """
    count, mine = of or (len(pixels), slice(None))
    height, width = pixels.shape[1:3]
    above, beside = max(1, round(height * _PADDING)), max(1, round(width * _PADDING))
    padded = pad(pixels, (0, 0, beside, beside, above, above))
    top = torch.randint(0, 2 * above + 1, (count, 1), generator=random)[mine]
    left = torch.randint(0, 2 * beside + 1, (count, 1), generator=random)[mine]
    mirrored = torch.randint(0, 2, (count, 1), generator=random).bool()[mine]
    columns = torch.arange(width).repeat(len(left), 1)
    if flips:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    rows = top + torch.arange(height)
    found = torch.arange(len(left))[:, None, None]
    return padded[found, rows[:, :, None], (left + columns)[:, None, :]]


def normalised(pixels: Tensor, preprocessing: Preprocessing | None) -> Tensor:
    """`(pixels / 255 - mean) / std` as float32 [n, c, h, w]."""
    values = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if preprocessing is None:
        return values.div_(255.0)
    mean = torch.tensor(preprocessing.mean).view(1, -1, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, -1, 1, 1)
    return values.div_(255.0).sub_(mean).div_(std)
