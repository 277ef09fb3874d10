"""k-means weight sharing: every weight is one of 2^BITS values, a palette for each layer or run of channels.

The values are Lloyd's centres, begun evenly between the least and the largest weight. In fine-tuning all
weights of one value get the mean of their gradients, so that they move as one: gradient descent in the space
of shared weights. In the end the values are rounded to fp16, in which Core ML keeps palettes too. Zeros of a
sparse network are a value of their own and stay zero.
Source: Han et al., "Deep Compression", ICLR 2016, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from toolchain.train.constraint import Constraint, Form, Shape, tensors_of
from toolchain.values import Program

MOST_BITS: Final = 8
ROUNDS: Final = 100
"""Of Lloyd's algorithm at most; the centres hardly move any more after some tens."""


class Shared(Constraint):
    """Weights of one value stay of one value."""

    def __init__(self, program: Program, names: Sequence[str], bits: int, shape: Shape) -> None:
        super().__init__(names, f"palette {bits} {shape.run} {shape.sparse}")
        self._values: dict[str, Tensor] = {}
        self._owners: dict[str, Tensor] = {}
        for name, weight in tensors_of(program, names).items():
            self._values[name], self._owners[name] = shared(weight, bits, shape.run, keep_zeros=shape.sparse)
        self._firsts = {name: _first(o, len(self._values[name])) for name, o in self._owners.items()}
        self._zeros = {n: w == 0 for n, w in tensors_of(program, names).items()} if shape.sparse else {}

    def start(self, module: nn.Module) -> None:
        """The centres instead of the weights."""
        for name, weight in self.weights(module).items():
            weight.copy_(self._values[name][self._owners[name]])

    def backward(self, module: nn.Module) -> None:
        """Every weight gets the mean gradient of those that share its value; zeros get none."""
        for name in self.names:
            gradient = module.get_parameter(name).grad
            if gradient is not None:
                owners = self._owners[name].to(gradient.device)
                mean = gradient.new_zeros(len(self._values[name]))
                mean.scatter_reduce_(0, owners.reshape(-1), gradient.reshape(-1), "mean", include_self=False)
                gradient.copy_(mean[owners])
                if name in self._zeros:
                    gradient[self._zeros[name].to(gradient.device)] = 0

    def settle(self, module: nn.Module) -> None:
        """Weights of one value have moved alike, up to the last bit of vector arithmetic: now exactly."""
        for name, weight in self.weights(module).items():
            owners, firsts = self._owners[name].to(weight.device), self._firsts[name].to(weight.device)
            weight.copy_(weight.reshape(-1)[firsts][owners])

    def rest(self, module: nn.Module) -> None:
        """Rounded to fp16."""
        self.settle(module)
        for weight in self.weights(module).values():
            weight.copy_(weight.half().to(weight.dtype))


def _first(owners: Tensor, count: int) -> Tensor:
    """Where each number from 0 to `count` occurs first in `owners`, flattened; the end where it does not."""
    flat = owners.reshape(-1)
    places = torch.full((count,), len(flat) - 1)
    return places.scatter_reduce(0, flat, torch.arange(len(flat)), "amin")


def shared(weight: Tensor, bits: int, run: int | None, *, keep_zeros: bool) -> tuple[Tensor, Tensor]:
    """Palettes of every `run` output channels in a row [values], and each weight's place [*weight]."""
    values: list[NDArray[Any]] = []
    owners = np.empty(weight.shape, np.int64)
    array = weight.cpu().double().numpy()
    for start in range(0, len(array), run or len(array)):
        part = array[start : start + (run or len(array))]
        before = sum(map(len, values))
        if keep_zeros:
            centres, numbers = kmeans(part[part != 0], 2**bits - 1)
            found = np.zeros(part.shape, np.int64)
            found[part != 0] = numbers + 1
            centres = np.concatenate([[0.0], centres])
        else:
            centres, found = kmeans(part.reshape(-1), 2**bits)
        values.append(centres)
        owners[start : start + len(part)] = before + found.reshape(part.shape)
    return torch.from_numpy(np.concatenate(values)).to(weight.dtype), torch.from_numpy(owners)


def kmeans(values: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lloyd's centres [at most count], ascending, of numbers [n], and the number of each one's centre [n].

    In one dimension a cluster is an interval, so that sums over sorted numbers are all it takes. Centres to
    which nothing is nearest go.
    """
    known = np.unique(values)
    if len(known) <= count:
        return known, np.searchsorted(known, values)
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.linspace(ordered[0], ordered[-1], count)
    for _ in range(ROUNDS):
        edges = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(ordered)]])
        filled = ends > starts
        after = (sums[ends] - sums[starts])[filled] / (ends - starts)[filled]
        if len(after) == len(centres) and np.allclose(
            after, centres, rtol=0, atol=1e-9 * np.abs(ordered).max()
        ):
            break
        centres = after
    return centres, np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="right")


def _read(text: str) -> int:
    if not (text.isdigit() and 1 <= int(text) <= MOST_BITS):
        raise ValueError(f"a palette has 1 to {MOST_BITS} bits")
    return int(text)


def _begin(program: Program, shape: Shape) -> Constraint:
    return Shared(program, (*shape.inner, *shape.edges), shape.setting, shape)


FORM: Final = Form(
    name="palette",
    summary="k-means weight sharing: 2^BITS values",
    takes="BITS",
    read=_read,
    begin=_begin,
)
