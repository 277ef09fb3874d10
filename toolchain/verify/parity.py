"""Exported files against the program they came from, on real inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from toolchain.contracts import Session
from toolchain.errors import ConversionError
from toolchain.values import Check, Program
from toolchain.verify.tolerance import FLOAT_RELATIVE, INT8_AGREEMENT, INT8_SNR_DB

if TYPE_CHECKING:
    import numpy as np

    from toolchain.contracts import Arrays, Batch

    Array = np.ndarray[Any, Any]

__all__ = ["agreement", "check_float", "check_quantized", "reference", "relative_error", "snr_db"]

_LOUDEST_DB: Final = 200.0
_AT_ONCE: Final = 64
"""Samples per comparison: memory for activations grows with it."""


def relative_error(found: Array, wanted: Array) -> float:
    """Largest absolute difference over the largest absolute wanted value; infinite where they cannot match.

    They cannot where shapes differ, or where a value is not finite in one and not the same in the other.
    """
    import numpy as np

    if found.shape != wanted.shape:
        return float("inf")
    if wanted.size == 0:
        return 0.0
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    finite = np.isfinite(found) & np.isfinite(wanted)
    if not bool(np.all(same | finite)):
        return float("inf")
    both = np.where(finite, found.astype(np.float64) - wanted.astype(np.float64), 0.0)
    scale = float(np.abs(np.where(finite, wanted, 0)).max())
    worst = float(np.abs(both).max())
    return 0.0 if worst == 0.0 else worst / max(scale, 1e-30)


def snr_db(found: Array, wanted: Array) -> float:
    """10 log10 of the power of `wanted` over that of the difference, within +-200; -inf where not finite."""
    import numpy as np

    if found.shape != wanted.shape or not bool(np.isfinite(found).all()):
        return float("-inf")
    signal = float(np.square(wanted.astype(np.float64)).sum())
    noise = float(np.square(found.astype(np.float64) - wanted.astype(np.float64)).sum())
    if noise == 0.0:
        return _LOUDEST_DB
    return -_LOUDEST_DB if signal == 0.0 else min(_LOUDEST_DB, float(10 * np.log10(signal / noise)))


def agreement(found: Array, wanted: Array) -> float:
    """Percent of samples (pixels, for maps) [n, classes, ...] whose largest class is the same."""
    import numpy as np

    if found.shape != wanted.shape or wanted.size == 0:
        return 0.0
    return 100.0 * float(np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)))


def check_float(program: Program, session: Session, inputs: Arrays, *, subject: str) -> Check:
    """The largest relative error over all outputs of a float file on `inputs` [n, ...]."""
    pairs = list(zip(session.run(inputs), reference(program, inputs), strict=True))
    errors = [relative_error(found, wanted) for found, wanted in pairs]
    worst = max(range(len(errors)), key=errors.__getitem__)
    count = len(inputs[0])
    return Check(
        name="float parity",
        subject=subject,
        status="pass" if errors[worst] <= FLOAT_RELATIVE else "fail",
        value=errors[worst],
        limit=FLOAT_RELATIVE,
        unit="relative error",
        detail=f"{count} samples, worst in output '{program.outputs[worst].name}'",
    )


def check_quantized(
    program: Program,
    session: Session,
    inputs: Arrays,
    batches: Iterable[Batch],
    *,
    subject: str,
    every: int = 1,
) -> tuple[Check, ...]:
    """Signal to noise of a quantized file on `inputs`, and its top-1 agreement with the program on `batches`.

    Agreement is of the first output [n, classes, ...], on every `every`-th sample of each batch; without
    batches, or where there are no classes to choose from, it is "not run".
    """
    ratio = min(snr_db(a, b) for a, b in zip(session.run(inputs), reference(program, inputs), strict=True))
    noise = Check(
        name="int8 signal to noise",
        subject=subject,
        status="pass" if ratio >= INT8_SNR_DB else "fail",
        value=ratio,
        limit=INT8_SNR_DB,
        unit="dB",
        detail=f"{len(inputs[0])} samples, worst output",
    )
    return noise, _agreement_check(program, session, _thinned(batches, every), subject=subject)


def _thinned(batches: Iterable[Batch], every: int) -> Iterator[Arrays]:
    for inputs, _ in batches:
        thinned = tuple(x[::every].numpy() for x in inputs)
        for start in range(0, len(thinned[0]), _AT_ONCE):
            yield tuple(x[start : start + _AT_ONCE] for x in thinned)


def _agreement_check(program: Program, session: Session, batches: Iterable[Arrays], *, subject: str) -> Check:
    shape = program.outputs[0].shape
    reason = "" if len(shape) >= 2 and shape[1] != 1 else f"output '{program.outputs[0].name}' has no classes"
    same, compared, total = 0, 0, 0
    for arrays in batches if not reason else ():
        found, wanted = session.run(arrays)[0], reference(program, arrays)[0]
        total += len(wanted)
        positions = wanted[:, 0].size
        same += round(agreement(found, wanted) / 100 * positions)
        compared += positions
    if not total:
        reason = reason or "no data to compare on"
        return Check(name="int8 agreement", subject=subject, status="not run", detail=reason)
    percent = 100 * same / compared
    return Check(
        name="int8 agreement",
        subject=subject,
        status="pass" if percent >= INT8_AGREEMENT else "fail",
        value=percent,
        limit=INT8_AGREEMENT,
        unit="% of top-1 classes",
        detail=f"{total} samples",
    )


def reference(program: Program, arrays: Sequence[Any]) -> tuple[Array, ...]:
    """The program's own outputs, one by one for the names in its specs."""
    with torch.no_grad():
        made = program.module(*(torch.from_numpy(array) for array in arrays))
    tensors = made if isinstance(made, tuple | list) else (made,)
    if len(tensors) != len(program.outputs):
        raise ConversionError(
            f"program '{program.name}' gives {len(tensors)} outputs, not {len(program.outputs)}"
        )
    return tuple(tensor.numpy() for tensor in tensors)
