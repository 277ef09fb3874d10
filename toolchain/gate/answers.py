"""Whether two files answer alike, each handed of the same samples what it was made for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from toolchain.assembly import format_named, open_session, runner
from toolchain.errors import InputError
from toolchain.input_view import VIEWED, InputView
from toolchain.plain import from_plain
from toolchain.values import Artifact, Preprocessing

if TYPE_CHECKING:
    from toolchain.contracts import Arrays, Data, Session
    from toolchain.train.metric import Metric

SAMPLES: Final = 256
"""Random inputs on which answers are compared where there are no data."""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A file opened for running, and the data as it is handed them, if there are any."""

    session: Session
    data: Data | None

    def score(self, metric: Metric) -> float:
        """The metric on all validation samples."""
        from toolchain.train.metric import evaluate

        assert self.data is not None
        return evaluate(runner(self.session), self.data, metric).value

    def answers(self) -> Iterator[Arrays]:
        """Outputs, batch by batch."""
        assert self.data is not None
        for tensors, _ in self.data.validation(SAMPLES):
            yield self.session.run(tuple(x.numpy() for x in tensors))


def answering(artifact: Artifact, data: str | None, preprocessing: Preprocessing) -> Answering:
    """A file and its data; what of its input was pruned (`edgefit.input` in the file) is cut off them.

    Raises:
        InputError: the file cannot be run here, or the data do not fit it.
    """
    session = open_session(artifact)
    if session is None:
        raise InputError("files of this format cannot be run here, so their answers cannot be compared")
    if data is None:
        return Answering(session=session, data=None)
    from toolchain.train.data import open_data
    from toolchain.train.viewed import Viewed

    specs = session.specs
    view = _view(artifact)
    if view is not None:
        specs = (replace(specs[0], shape=(specs[0].shape[0], *view.shape)),)
    found = open_data(data, preprocessing=preprocessing, program_inputs=specs)
    return Answering(session=session, data=found if view is None else Viewed(data=found, view=view))


def agreeing(new: Answering, old: Answering) -> tuple[float, int]:
    """(percent of equal decisions on the first output, number of samples).

    Raises:
        InputError: without data, files whose inputs differ.
    """
    from toolchain.verify.parity import agreement

    same, samples = 0.0, 0
    for found, wanted in _both(new, old):
        same += agreement(found[0], wanted[0]) * len(wanted[0])
        samples += len(wanted[0])
    return same / samples, samples


def _both(new: Answering, old: Answering) -> Iterator[tuple[Arrays, Arrays]]:
    if new.data is not None:
        yield from zip(new.answers(), old.answers(), strict=True)
        return
    shapes = [[spec.shape[1:] for spec in side.session.specs] for side in (new, old)]
    if shapes[0] != shapes[1]:
        raise InputError("the two files take inputs of different shapes", hint="give --data")
    for arrays in _random(new.session):
        yield new.session.run(arrays), old.session.run(arrays)


def _random(session: Session) -> Iterator[Arrays]:
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(SAMPLES):
        shapes = [(tuple(1 if n is None else n for n in spec.shape), spec.dtype) for spec in session.specs]
        yield tuple(
            rng.standard_normal(shape).astype(kind) if kind.startswith("float") else
            rng.integers(0, 2, shape).astype(kind)
            for shape, kind in shapes
        )  # fmt: skip


def _view(artifact: Artifact) -> InputView | None:
    entry = format_named(artifact.format).read(artifact.path).get(VIEWED)
    if entry is None:
        return None
    try:
        return from_plain(InputView, {k: v for k, v in json.loads(entry).items() if k != "text"})
    except (ValueError, AttributeError) as error:
        raise InputError(f"{artifact.path}: what it says of its input ({VIEWED}) is unreadable") from error
