"""The user's own loaders: `package.module:function` returning (train_loader, validation_loader)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from toolchain.errors import InputError
from toolchain.train.batches import share_of, spread, without_lone
from toolchain.train.metric import import_attribute
from toolchain.values import Preprocessing, TensorSpec

if TYPE_CHECKING:
    from toolchain.contracts import Batch

_HINT: Final = "return (train_loader, validation_loader), each yielding (inputs, target) batches of tensors"
_POOL: Final = 4
"""Calibration samples are chosen, spread over the classes, among this many times their number."""


@dataclass(frozen=True, kw_only=True)
class Loaders:
    """Loaders as data. Shuffling and augmentation are the loaders' own; batches have their batch size."""

    name: str
    train_loader: Iterable[Any]
    validation_loader: Iterable[Any]
    inputs: tuple[TensorSpec, ...]
    train_size: int
    validation_size: int
    identity: str
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    skipped: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """A hash of the validation samples and of the training part's size."""
        return self.identity

    def train(
        self, batch_size: int, *, seed: int, augment: bool, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """One epoch of the training loader; torch's random state is seeded for it and then restored.

        For a share of every batch the whole batch is read: what the loader does is its own.
        """
        batches = without_lone(self._checked(self.train_loader))
        return (share_of(batch, part) for batch in _seeded(batches, seed))

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """The validation loader's batches."""
        return self._checked(self.validation_loader)

    def calibration(self, count: int) -> Batch:
        """`count` training samples spread over the classes, from the first batches of a seeded epoch."""
        batches, seen = [], 0
        for inputs, target in _seeded(self._checked(self.train_loader), 0):
            batches.append((inputs, target))
            seen += len(target)
            if seen >= _POOL * count:
                break
        if not batches:
            raise InputError(f"{self.name}: the training loader is empty", hint=_HINT)
        target = torch.cat([t for _, t in batches])
        chosen = torch.from_numpy(spread(target.numpy())[:count].copy())
        return tuple(
            torch.cat(column)[chosen] for column in zip(*(i for i, _ in batches), strict=True)
        ), target[chosen]

    def _checked(self, loader: Iterable[Any]) -> Iterator[Batch]:
        for batch in loader:
            yield _as_batch(self.name, batch, self.inputs)


def open_loaders(spec: str, *, program_inputs: tuple[TensorSpec, ...]) -> Loaders:
    """Call the function and look at what it returns.

    Raises:
        InputError: not importable, or not returning loaders that fit the network.
    """
    returned = import_attribute(spec, what="data")()
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise InputError(f"data '{spec}' returned {type(returned).__name__}", hint=_HINT)
    for loader in returned:
        if not isinstance(loader, Iterable) or isinstance(loader, Iterator):
            what = "can be read only once" if isinstance(loader, Iterator) else "is no loader"
            raise InputError(f"data '{spec}': {type(loader).__name__} {what}", hint=_HINT)
    digest = hashlib.sha256(spec.encode())
    validation_size = 0
    for inputs, target in (_as_batch(spec, batch, program_inputs) for batch in returned[1]):
        validation_size += len(target)
        for tensor in (*inputs, target):
            digest.update(tensor.contiguous().numpy().tobytes())
    if validation_size == 0:
        raise InputError(f"data '{spec}': the validation loader is empty", hint=_HINT)
    train_size = _size(spec, returned[0], program_inputs)
    digest.update(str(train_size).encode())
    dataset = getattr(returned[0], "dataset", None)
    return Loaders(
        name=spec,
        train_loader=returned[0],
        validation_loader=returned[1],
        inputs=program_inputs,
        train_size=train_size,
        validation_size=validation_size,
        identity=digest.hexdigest(),
        classes=tuple(str(c) for c in getattr(dataset, "classes", ())),
    )


def _size(spec: str, loader: Any, inputs: tuple[TensorSpec, ...]) -> int:
    dataset = getattr(loader, "dataset", None)
    drops = getattr(loader, "drop_last", False)
    if dataset is not None and hasattr(dataset, "__len__") and not drops:
        return len(dataset)
    size = sum(len(_as_batch(spec, batch, inputs)[1]) for batch in loader)
    if size == 0:
        raise InputError(f"data '{spec}': the training loader is empty", hint=_HINT)
    return size


def _as_batch(name: str, batch: Any, specs: tuple[TensorSpec, ...]) -> Batch:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[1], Tensor):
        raise InputError(
            f"data '{name}': a batch is {type(batch).__name__}, not (inputs, target)", hint=_HINT
        )
    inputs = (batch[0],) if isinstance(batch[0], Tensor) else tuple(batch[0])
    if len(inputs) != len(specs):
        raise InputError(
            f"data '{name}': {len(inputs)} inputs a batch, the network takes {len(specs)}", hint=_HINT
        )
    for tensor, spec in zip(inputs, specs, strict=True):
        if not isinstance(tensor, Tensor) or len(tensor) != len(batch[1]):
            raise InputError(f"data '{name}': input '{spec.name}' and target differ in length", hint=_HINT)
        shape, wanted = tensor.shape[1:], spec.shape[1:]
        if len(shape) != len(wanted) or any(w not in (None, h) for w, h in zip(wanted, shape, strict=True)):
            raise InputError(
                f"data '{name}': samples are {list(shape)}, input '{spec.name}' takes {list(wanted)}",
                hint="the loaders must yield what the network takes",
            )
    return inputs, batch[1]


def _seeded(batches: Iterator[Batch], seed: int) -> Iterator[Batch]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        iterator = iter(batches)
        first = next(iterator, None)
        state = torch.get_rng_state()
    while first is not None:
        yield first
        # The consumer draws numbers too (dropout); the loader's own sequence must not depend on that.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            first = next(iterator, None)
            state = torch.get_rng_state()
