"""Storing weights as a chapter of the run: made few and alike, fine-tuned so, packed without loss.

Zeros first, by magnitude, with batch norms in place. Then batch norms go into their layers and weights into
the form asked for (binary and ternary weights, which need the norms to train, the other way round). What is
exported afterwards are these very weights, so that every file is packed without loss.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from toolchain import registry
from toolchain.baseline import Baseline
from toolchain.closing import Choice
from toolchain.contracts import Schedule
from toolchain.errors import InputError
from toolchain.findings import score_record
from toolchain.plain import to_plain
from toolchain.program.capture import fingerprint
from toolchain.program.cost import layers
from toolchain.program.lower import lower
from toolchain.program.merging import merged
from toolchain.proof import Proof, program_score
from toolchain.run import Run
from toolchain.settings import STORED
from toolchain.store.container import Stored, Weight, restore, store
from toolchain.train.constraint import Constraint, Form, Shape, Sparse
from toolchain.train.forms.palette import FORM as PALETTE
from toolchain.train.latent import EDGE_BITS
from toolchain.train.loop import fine_tune
from toolchain.train.metric import Score
from toolchain.values import Artifact, Budget, Check, Program, Request

FORMS: Final = "toolchain.train.forms"
RATE: Final = 0.01
"""Highest learning rate of weights under a constraint."""
SUFFIX: Final = ".stored"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of the weights: scores before and after, and how many are zero."""

    before: Score | None
    after: Score | None
    zeros: float


def form_named(request: Request) -> tuple[Form, Any] | None:
    """The form of storage asked for with its setting; None where nothing is to be stored.

    Raises:
        InputError: no such form or setting, or something in the request that it does not go together with.
    """
    asked = request.storage
    if asked is None:
        return None
    name, _, text = asked.form.partition(":")
    form: Form = registry.find(FORMS, "FORM", name, kind="form of storage")
    try:
        setting = form.read(text)
    except ValueError as error:
        raise InputError(
            f"--store {asked.form}: {error}", hint=f"write --store {name}{':' * bool(form.takes)}{form.takes}"
        ) from error
    registry.find("toolchain.prune.schedules", "SCHEDULE", asked.schedule, kind="schedule")
    if asked.sparsity >= 1:
        raise InputError("--sparsity 1 leaves no weight", hint="give a share below 1")
    if form.table is not None and asked.sparsity:
        raise InputError(
            f"--sparsity and --store {name} do not go together: what is zero is decided by the form",
            hint="leave one of them out, or choose --store palette:BITS",
        )
    if form.begin is None and not asked.sparsity:
        raise InputError(f"--store {name} alone saves nothing", hint="give --sparsity, or another form")
    if request.allow_resize is not None:
        raise InputError("--store and --allow-resize do not go together", hint="leave one of them out")
    if "fp32" not in request.precisions:
        raise InputError(
            f"--store packs weights of float files, and --precision asks for {', '.join(request.precisions)}",
            hint="leave --precision out, or choose fp32",
        )
    return form, setting


def kept(run: Run, choice: Choice, program: Program) -> tuple[Choice, Program, Kept | None]:
    """The program with weights in the form asked for, and the choice whose files say so; else as handed in.

    A network that is handed a part of the input is trained on that part, with what it was before as teacher.

    Raises:
        Interrupted: Ctrl-C; finished epochs are kept.
    """
    asked, found = run.request.storage, form_named(run.request)
    if asked is None or found is None:
        return choice, program, None
    form, setting = found
    run = run if choice.run.view is None else choice.run
    before = None if run.data is None else program_score(run, program)
    if asked.sparsity:
        schedule: Schedule = registry.find("toolchain.prune.schedules", "SCHEDULE", asked.schedule)
        program = _held(run, program, Sparse(_all(program), asked.sparsity, schedule), "zeros")
    if form.begin is not None:
        program = program if form.normed else merged(program)
        inner, edges = _weights(program)
        shape = Shape(
            setting=setting,
            inner=inner,
            edges=edges,
            sparse=bool(asked.sparsity),
            run=asked.run,
            rounding=asked.rounding,
            seed=run.request.seed,
        )
        program = _held(run, program, form.begin(program, shape), asked.form)
        if form.normed:
            program = _edges_shared(merged(program), shape)
    program = _cleared(program)
    material = replace(run.material, metadata={**run.material.metadata, STORED: asked.form})
    weights = [program.module.get_parameter(name) for name in _all(program)]
    zeros = sum(int((w == 0).sum()) for w in weights) / max(1, sum(w.numel() for w in weights))
    after = None if run.data is None else program_score(run, program)
    choice = replace(choice, run=replace(choice.run, material=material))
    if run.request.budget == Budget() and choice.plan.changes_nothing:
        choice = replace(choice, reason="no budget: nothing is pruned, weights are stored")
    return choice, program, Kept(before=before, after=after, zeros=zeros)


def _weights(program: Program) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The weights of layers that can be trained: those inside, and those of the first and the last layer.

    A transposed convolution has its output channels in another dimension, and counts as first or last.
    """
    trained = dict(program.module.named_parameters())
    found = [layer for layer in layers(program) if layer.weight in trained]
    order = list(dict.fromkeys(layer.weight for layer in found))
    apart = {*order[:1], *order[-1:], *(layer.weight for layer in found if layer.transposed)}
    return tuple(n for n in order if n not in apart), tuple(n for n in order if n in apart)


def _all(program: Program) -> tuple[str, ...]:
    inner, edges = _weights(program)
    return (*inner, *edges)


def _held(run: Run, program: Program, constraint: Constraint, what: str) -> Program:
    """The program, fine-tuned under a constraint where there are data, with weights that hold it."""
    asked, request, data = run.request.storage, run.request, run.data
    assert asked is not None
    program = replace(program, module=copy.deepcopy(program.module))
    constraint.start(program.module)
    if data is None or asked.epochs == 0:
        constraint.finish(program.module)
        run.notes.append(f"{what}: weights were not fine-tuned")
        return program
    training = replace(
        request.training, epochs=asked.epochs, lr=request.lr or RATE, schedule="one-shot", seed=request.seed
    )
    inputs = [fingerprint(program), data.fingerprint(), constraint.identity, repr(training)]
    with run.stage(f"Fine-tuning for storage ({what})", "store"):
        tuned = fine_tune(
            program,
            teacher=run.program,
            data=data,
            metric=run.metric,
            training=training,
            folder=run.stages.folder("storing", inputs),
            progress=run.progress,
            constraint=constraint,
            resume=True,
            finish=request.finish,
        )
    constraint.finish(tuned.program.module)
    early = ", ended before that" if tuned.stopped_early else ""
    run.notes.append(
        f"{what}: fine-tuned for {len(tuned.history)} of {asked.epochs} epochs{early}, "
        f"epoch {tuned.best_epoch} taken"
    )
    return tuned.program


def _edges_shared(program: Program, shape: Shape) -> Program:
    """Palettes for the first and the last layer, which are not of few values."""
    assert PALETTE.begin is not None
    program = replace(program, module=copy.deepcopy(program.module))
    inner, edges = _weights(program)
    only = replace(shape, setting=EDGE_BITS, inner=(), edges=edges, run=None)
    constraint = PALETTE.begin(program, only)
    constraint.start(program.module)
    for name in inner:  # merging multiplied scales by those of norms: fp16 again, and still few values
        weight = program.module.get_parameter(name).detach()
        weight.copy_(weight.half().to(weight.dtype))
    constraint.finish(program.module)
    return program


def _cleared(program: Program) -> Program:
    """The program with one zero: merging makes -0 of zeros whose norm has a negative scale."""
    module = copy.deepcopy(program.module)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(0.0)
    return replace(program, module=module)


def packed(
    run: Run, proof: Proof, baseline: Baseline, kept: Kept | None
) -> tuple[Proof, tuple[Path, ...], Mapping[str, Any] | None]:
    """The proof with a check of every packed file, these files, and what the report says of them."""
    asked = run.request.storage
    if asked is None or kept is None:
        return proof, (), None
    form: Form = registry.find(FORMS, "FORM", asked.form.partition(":")[0])
    lowered = lower(proof.program)
    known = {**dict(lowered.module.named_parameters()), **dict(lowered.module.named_buffers())}
    names = dict.fromkeys(layer.weight for layer in layers(lowered) if layer.weight in known)
    weights = tuple(
        Weight(name=n, values=known[n].detach().float().cpu().numpy(), run=asked.run or form.table)
        for n in names
    )
    paths, checks, files = [], [], []
    with run.stage("Packing every file", "store"):
        for kind, artifact in proof.artifacts.items():
            if artifact.path.is_file() and artifact.precision == "fp32":
                path, done = _packed(run, artifact, weights)
                original = _original(baseline, kind[0])
                paths.append(path)
                checks.append(_check(path, artifact))
                files.append(_file(path, artifact, done, original))
    record = {
        **to_plain(asked),
        "zeros": kept.zeros,
        "metric_before": score_record(kept.before),
        "metric_after": score_record(kept.after),
        "files": files,
    }
    return replace(proof, checks=(*proof.checks, *checks)), tuple(paths), record


def _packed(run: Run, artifact: Artifact, weights: Sequence[Weight]) -> tuple[Path, Stored]:
    """The file, packed, as a finished stage."""
    found: list[Stored] = []
    name = artifact.path.name + SUFFIX

    def make(folder: Path) -> None:
        found.append(store(artifact.path.read_bytes(), tuple(weights)))
        (folder / name).write_bytes(found[0].content)
        (folder / "layers.json").write_text(json.dumps(found[0].layers), encoding="utf-8")

    folder, _ = run.stages.once("stored", [artifact.sha256, to_plain(run.request.storage)], make)
    layers_found = json.loads((folder / "layers.json").read_text(encoding="utf-8"))
    content = (folder / name).read_bytes()
    return folder / name, Stored(content=content, layers={n: tuple(row) for n, row in layers_found.items()})


def _check(path: Path, artifact: Artifact) -> Check:
    """Whether the packed file is the model file again, to the bit."""
    same = hashlib.sha256(restore(path.read_bytes(), path.name)).hexdigest() == artifact.sha256
    return Check(
        name="unpacks to the same file",
        subject=path.name,
        status="pass" if same else "fail",
        detail=f"sha256 of {artifact.path.name}",
    )


def _original(baseline: Baseline, format_name: str) -> int | None:
    """Bytes of the original's float file of a format."""
    sizes = [
        a.size_bytes for a in baseline.artifacts.values() if (a.format, a.precision) == (format_name, "fp32")
    ]
    return sizes[0] if sizes else None


def _file(path: Path, artifact: Artifact, done: Stored, original: int | None) -> dict[str, Any]:
    columns = ("weights", "values", "zeros", "bytes")
    return {
        "path": path.name,
        "size_bytes": len(done.content),
        "sha256": hashlib.sha256(done.content).hexdigest(),
        "restores": artifact.path.name,
        "file_bytes": artifact.size_bytes,
        "original_bytes": original,
        "layers": [{"layer": n, **dict(zip(columns, row, strict=True))} for n, row in done.layers.items()],
    }
