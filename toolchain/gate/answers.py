"""Whether two files answer alike, each handed of the same samples what it was made for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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


def answering(
    artifacts: Sequence[Artifact], data: str | None, preprocessing: Preprocessing
) -> tuple[Answering, ...]:
    """Files and their data; what of its input was pruned (`edgefit.input` in the file) is cut off them.

    Data are read once for all files that are made for the same whole samples.

    Raises:
        InputError: a file cannot be run here, or the data do not fit it.
    """
    sessions = [_session(artifact) for artifact in artifacts]
    if data is None:
        return tuple(Answering(session=session, data=None) for session in sessions)
    from toolchain.train.data import open_data
    from toolchain.train.viewed import Viewed

    read: dict[tuple[object, ...], Data] = {}
    found = []
    for artifact, session in zip(artifacts, sessions, strict=True):
        specs, view = session.specs, _view(artifact)
        if view is not None:
            specs = (replace(specs[0], shape=(specs[0].shape[0], *view.shape)),)
        kind = tuple((spec.shape[1:], spec.dtype) for spec in specs)
        if kind not in read:
            read[kind] = open_data(data, preprocessing=preprocessing, program_inputs=specs)
        own = read[kind] if view is None else Viewed(data=read[kind], view=view)
        found.append(Answering(session=session, data=own))
    return tuple(found)


def agreeing(new: Answering, old: Answering) -> tuple[float, int]:
    """(percent of equal decisions on the first output, number of samples).

    Raises:
        InputError: without data, files whose inputs differ.
    """
    from toolchain.verify.parity import agreement

    same, samples = 0.0, 0
    for own, other in _inputs(new, old):
        found, wanted = new.session.run(own)[0], old.session.run(other)[0]
        same += agreement(found, wanted) * len(wanted)
        samples += len(wanted)
    return same / samples, samples


def _inputs(new: Answering, old: Answering) -> Iterator[tuple[Arrays, Arrays]]:
    """What each of them is handed of the same samples, batch by batch."""
    if new.data is None or old.data is None:
        shapes = [[spec.shape[1:] for spec in side.session.specs] for side in (new, old)]
        if shapes[0] != shapes[1]:
            raise InputError("the two files take inputs of different shapes", hint="give --data")
        return ((arrays, arrays) for arrays in _random(new.session))
    if new.data is old.data:
        return ((arrays, arrays) for arrays in _samples(new.data))
    return zip(_samples(new.data), _samples(old.data), strict=True)


def _samples(data: Data) -> Iterator[Arrays]:
    for tensors, _ in data.validation(SAMPLES):
        yield tuple(x.numpy() for x in tensors)


def _session(artifact: Artifact) -> Session:
    session = open_session(artifact)
    if session is None:
        raise InputError("files of this format cannot be run here, so their answers cannot be compared")
    return session


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
