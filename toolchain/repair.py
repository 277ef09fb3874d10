"""What is done to the cut network before it is fine-tuned: weights, then statistics.

With data its layers are fitted to what the original's put out, unless that is turned off; rescaled weights
and statistics estimated anew are for those who ask.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from toolchain.closing import Choice
from toolchain.contest import reduce
from toolchain.damage import JUDGED, damage_together
from toolchain.program.capture import fingerprint
from toolchain.program.channels import analyse
from toolchain.program.connecting import completed, prepared
from toolchain.program.cost import layers
from toolchain.program.entrance import narrowed
from toolchain.program.ordering import Keep
from toolchain.program.rescale import rescale
from toolchain.run import Run
from toolchain.train.reestimate import adaptive, reestimate_statistics
from toolchain.train.refit import refit

if TYPE_CHECKING:
    from toolchain.contracts import Batch, Data
    from toolchain.values import Channels, Program

SEEN: Final = 2048
"""Training samples from which batch-norm statistics are estimated anew."""
NAMED: Final = 3
FITTED: Final = 512
"""Training samples that weights are fitted to; fewer where their activations would not fit in `BYTES`."""
BYTES: Final = 256 * 2**20
"""Memory for the largest activation of all samples that weights are fitted to."""
FEWEST: Final = 32
"""Fewer samples say too little to fit anything to."""

CLEARLY: Final = 0.9
"""Share of the divergence that a fit may leave: a few per cent won on few samples are bought with weights
that train worse (for a VGG 1.39 -> 1.30 nats cost 12.6 points after two epochs)."""


def repaired(run: Run, choice: Choice) -> Choice:
    """The choice with weights rescaled and fitted and statistics estimated anew, as the request asks.

    Where a method trained the network while it learned what to remove, the same cut of the original is put
    right too, and the one that diverges less from the original is taken: a short training under a tight
    budget can spoil more than it teaches. Latency depends on none of it: what was measured stays true.
    """
    if choice.plan.changes_nothing:
        return choice
    original = _original(run)
    if original is None:
        return _repaired(run, choice)
    taught, fresh = replace(run, notes=[]), replace(original, notes=[])
    cut = reduce(original.program, original.channels, choice.plan)
    found = _repaired(taught, replace(choice, run=taught))
    other = _repaired(fresh, replace(choice, run=fresh, program=cut))
    nats = [damage_together(original, each.program) for each in (found, other)]
    better, says = (other, "the original's") if nats[1] < nats[0] else (found, "those learned")
    run.notes.extend(better.run.notes)
    run.notes.append(
        f"fine-tuning starts from {says}: cut to this plan, weights as learned diverge from the original by "
        f"{nats[0]:.2f} nats, its own by {nats[1]:.2f}"
    )
    return replace(better, run=replace(better.run, notes=run.notes))


def _original(run: Run) -> Run | None:
    """The run on the network as handed in; None where it is on that, or without data."""
    given = run.learned_from
    if given is None or run.data is None or given.module is run.program.module:
        return None
    if run.view is None or run.origin is None:
        return replace(run, program=replace(given, loose=run.program.loose), learned_from=None)
    origin = replace(run.origin, program=given, learned_from=None)
    return replace(run, program=narrowed(given, run.view), learned_from=None, origin=origin)


def _repaired(run: Run, choice: Choice) -> Choice:
    program, request = choice.program, run.request
    if request.rescale != "none":
        original, channels, keep = _cut_from(choice)
        found = rescale(original, program, channels, keep, request.rescale)
        program = found.program
        count = len(found.weights)
        rescaled = f"weights of {count} layers rescaled for the inputs they lost"
        run.notes.append(rescaled if count else "nothing rescaled: no layer in question lost inputs")
        if found.left:
            some = ", ".join(found.left[:NAMED]) + (", ..." if len(found.left) > NAMED else "")
            run.notes.append(
                f"no rescaling is defined for {len(found.left)} other layers that lost inputs: {some}"
            )
    if request.refit and run.data is not None and request.training.schedule == "one-shot":
        program = _refitted(run, choice, program, run.data)
    if request.reestimate and run.data is not None:
        norms = len(adaptive(program)[1]) // 2
        with run.stage("Batch-norm statistics of the cut network", "fine-tune"):
            program = reestimate_statistics(program, _batches(run.data, request.training.batch_size))
        seen = min(SEEN, run.data.train_size)
        run.notes.append(f"statistics of {norms} batch norms estimated anew on {seen} training samples")
    return replace(choice, program=program)


def _refitted(run: Run, choice: Choice, program: Program, data: Data) -> Program:
    """The program with fitted weights, if it comes nearer to the original on samples not fitted to.

    A finished stage: a run that is resumed goes on from the very same weights.
    """
    inputs, target = data.calibration(JUDGED + _fitted_samples(run.program))
    samples = tuple(x[JUDGED:] for x in inputs)
    if len(target) - JUDGED < FEWEST:
        run.notes.append(f"weights not fitted to the original: fewer than {JUDGED + FEWEST} training samples")
        return program

    original, channels, keep = _cut_from(choice)

    def make(folder: Path) -> None:
        with run.stage("Weights of the cut network fitted to the original", "fine-tune"):
            found = refit(original, program, channels, keep, samples)
        torch.save(found.program.module.state_dict(), folder / "weights.pt")
        nats = [damage_together(run, program), damage_together(run, found.program)]
        record = {"layers": len(found.weights), "nats": nats}
        (folder / "fit.json").write_text(json.dumps(record), encoding="utf-8")

    started = [fingerprint(p) for p in (run.given, run.program, program)]
    folder, _ = run.stages.once("fitted", [started, data.fingerprint(), len(target)], make)
    record = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    before, after = record["nats"]
    change = f"divergence from the original {before:.2f} before, {after:.2f} nats after"
    if not after < CLEARLY * before:
        run.notes.append(
            f"weights fitted to the original were not clearly better ({change}): left as they were"
        )
        return program
    run.notes.append(f"weights of {record['layers']} layers fitted to the original: {change}")
    module = copy.deepcopy(program.module)
    module.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return replace(program, module=module)


def _cut_from(choice: Choice) -> tuple[Program, Channels, Keep]:
    """The program that the choice's was cut from, its groups, and what of them was kept."""
    program, channels, plan = choice.run.program, choice.run.channels, choice.plan
    if plan.connectivity == "tied":
        return program, channels, plan.keep
    program, keep = prepared(program, plan.keep, plan.dropped)
    channels = analyse(program)
    return program, channels, completed(channels, keep)


def _fitted_samples(program: Program) -> int:
    """As many samples as memory allows for."""
    largest = max(
        (layer.out_channels * math.prod(layer.output_size) * layer.tokens for layer in layers(program)),
        default=1,
    )
    return max(FEWEST, min(FITTED, BYTES // (4 * max(largest, 1))))


def _batches(data: Data, size: int) -> Iterator[Batch]:
    """Training samples as they are, at least two in a batch: one alone has no variance."""
    inputs, target = data.calibration(SEEN)
    for start in range(0, max(len(target) - 1, 1), size):
        end = start + size if start + size < len(target) - 1 else len(target)
        yield tuple(x[start:end] for x in inputs), target[start:end]
