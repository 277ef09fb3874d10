"""What is done to the cut network before it is fine-tuned, where asked for: weights, then statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from toolchain.closing import Choice
from toolchain.program.rescale import rescale
from toolchain.run import Run
from toolchain.train.reestimate import adaptive, reestimate_statistics

if TYPE_CHECKING:
    from toolchain.contracts import Batch, Data

SEEN: Final = 2048
"""Training samples from which batch-norm statistics are estimated anew."""
NAMED: Final = 3


def repaired(run: Run, choice: Choice) -> Choice:
    """The choice with its program's weights rescaled and its statistics estimated anew, as the request asks.

    Latency depends on neither: what was measured of the choice stays true.
    """
    if choice.plan.changes_nothing:
        return choice
    program, request = choice.program, run.request
    if request.rescale != "none":
        found = rescale(run.program, program, run.channels, choice.plan.keep, request.rescale)
        program = found.program
        count = len(found.weights)
        rescaled = f"weights of {count} layers rescaled for the inputs they lost"
        run.notes.append(rescaled if count else "nothing rescaled: no layer in question lost inputs")
        if found.left:
            some = ", ".join(found.left[:NAMED]) + (", ..." if len(found.left) > NAMED else "")
            run.notes.append(
                f"no rescaling is defined for {len(found.left)} other layers that lost inputs: {some}"
            )
    if request.reestimate and run.data is not None:
        layers = len(adaptive(program)[1]) // 2
        with run.stage("Batch-norm statistics of the cut network", "fine-tune"):
            program = reestimate_statistics(program, _batches(run.data, request.training.batch_size))
        seen = min(SEEN, run.data.train_size)
        run.notes.append(f"statistics of {layers} batch norms estimated anew on {seen} training samples")
    return replace(choice, program=program)


def _batches(data: Data, size: int) -> Iterator[Batch]:
    """Training samples as they are, at least two in a batch: one alone has no variance."""
    inputs, target = data.calibration(SEEN)
    for start in range(0, max(len(target) - 1, 1), size):
        end = start + size if start + size < len(target) - 1 else len(target)
        yield tuple(x[start:end] for x in inputs), target[start:end]
