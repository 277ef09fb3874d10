"""Labelled samples of some classes only, their numbers counted anew.

Samples without any of the classes are left out; positions of other classes in what remains (pixels of a
segmentation) carry `IGNORED`, which losses and metrics pass over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from toolchain.contracts import Data
from toolchain.errors import InputError
from toolchain.train.batches import share_of, without_lone
from toolchain.train.confusion import IGNORED
from toolchain.values import Preprocessing

if TYPE_CHECKING:
    from toolchain.contracts import Batch

_READ = 256


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Data of the classes `wanted` (numbers in `whole`, ascending)."""

    whole: Data
    wanted: tuple[int, ...]
    classes: tuple[str, ...]
    train_size: int
    validation_size: int

    @property
    def name(self) -> str:
        """What the report calls the data."""
        return f"{self.whole.name} ({len(self.wanted)} classes)"

    @property
    def preprocessing(self) -> Preprocessing | None:
        """As of all samples."""
        return self.whole.preprocessing

    @property
    def skipped(self) -> tuple[str, ...]:
        """As of all samples."""
        return self.whole.skipped

    def fingerprint(self) -> str:
        """A hash that changes when the samples or the classes do."""
        return hashlib.sha256(f"{self.whole.fingerprint()} {self.wanted}".encode()).hexdigest()

    def train(
        self, batch_size: int, *, seed: int, augment: bool, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """One epoch of the training part, shuffled by `seed`, in batches of `batch_size` but the last."""
        batches = self.whole.train(batch_size, seed=seed, augment=augment)
        whole = _refilled((self._of(batch) for batch in batches), batch_size)
        return (share_of(batch, part) for batch in without_lone(whole))

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """The validation part, in a fixed order."""
        return _refilled((self._of(batch) for batch in self.whole.validation(batch_size)), batch_size)

    def calibration(self, count: int) -> Batch:
        """`count` training samples (all, if fewer), fixed, not augmented."""
        asked = count * max(len(self.whole.classes), len(self.wanted)) // len(self.wanted)
        while True:
            asked = min(asked, self.whole.train_size)
            inputs, target = self._of(self.whole.calibration(asked))
            if len(target) >= count or asked == self.whole.train_size:
                break
            asked *= 2
        return tuple(x[:count] for x in inputs), target[:count]

    def _of(self, batch: Batch) -> Batch:
        inputs, target = batch
        mapped = renumbered(target, self.wanted)
        there = (mapped != IGNORED).flatten(1).any(1) if mapped.dim() > 1 else mapped != IGNORED
        return tuple(x[there] for x in inputs), mapped[there]


def select(
    data: Data, names: Sequence[str], known: Sequence[str], count: int
) -> tuple[Data, tuple[int, ...]]:
    """The data of the classes called so, and their numbers.

    Args:
        data: all of it.
        names: names of classes, or their numbers.
        known: the names of all classes; empty where they have none.
        count: how many classes there are.

    Raises:
        InputError: a class that is not there, fewer than two, or without samples.
    """
    wanted = numbers_of(names, known, count)
    sizes = []
    for batches in (data.train(_READ, seed=0, augment=False), data.validation(_READ)):
        there = torch.zeros(count, dtype=torch.bool)
        size = 0
        for _, target in batches:
            if target.dtype.is_floating_point:
                raise InputError(f"--classes: the targets of {data.name} are no classes")
            mapped = renumbered(target, wanted)
            there[[wanted[i] for i in set(mapped[mapped != IGNORED].tolist())]] = True
            size += int((mapped != IGNORED).reshape(len(mapped), -1).any(1).sum())
        missing = [known[n] if known else str(n) for n in wanted if not there[n]]
        if missing:
            raise InputError(f"--classes: {data.name} has no samples of {', '.join(missing)}")
        sizes.append(size)
    chosen = tuple(known[n] for n in wanted) if known else ()
    return (
        Selected(whole=data, wanted=wanted, classes=chosen, train_size=sizes[0], validation_size=sizes[1]),
        wanted,
    )


def numbers_of(names: Sequence[str], known: Sequence[str], count: int) -> tuple[int, ...]:
    """The ascending numbers of classes given by name or number.

    Raises:
        InputError: a class that is not there, or fewer than two.
    """
    found = set()
    for name in names:
        if name in known:
            found.add(list(known).index(name))
        elif name.isdigit() and int(name) < count:
            found.add(int(name))
        else:
            some = (
                ", ".join(known[:12]) + (", ..." if len(known) > 12 else "") if known else f"0 to {count - 1}"
            )
            raise InputError(f"--classes: no class '{name}'", hint=f"known: {some}")
    if len(found) < 2:
        raise InputError("--classes needs two classes at least", hint="separate them by commas")
    return tuple(sorted(found))


def renumbered(target: Tensor, wanted: Sequence[int]) -> Tensor:
    """Class numbers [*target] as their places in `wanted`; `IGNORED` where they are none of them."""
    found = torch.full_like(target, IGNORED, dtype=torch.int64)
    for place, number in enumerate(wanted):
        found[target == number] = place
    return found


def _refilled(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    """The same samples in batches of `size`, the last perhaps smaller."""
    held: list[Batch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += len(batch[1])
        while count >= size:
            inputs, target = _joined(held)
            yield tuple(x[:size] for x in inputs), target[:size]
            held = [(tuple(x[size:] for x in inputs), target[size:])]
            count -= size
    if count:
        yield _joined(held)


def _joined(batches: Sequence[Batch]) -> Batch:
    columns = zip(*(inputs for inputs, _ in batches), strict=True)
    return tuple(torch.cat(column) for column in columns), torch.cat([target for _, target in batches])
