"""The whole house in one function: read `compress` first.

capture -> baseline -> plan (closed loop with the target) -> fine-tune -> store -> export, quantize, verify,
measure. A method that prunes while training learns between plan and fine-tune, and is planned for again.
The one step back: a final measurement over the budget corrects the latency model and plans again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from toolchain import findings, registry
from toolchain.assembly import copy_file, material_of, require_formats
from toolchain.baseline import Baseline, combinations, measure_baseline
from toolchain.closing import Choice, close_loop_again
from toolchain.contracts import Data, Device, Progress, Silent, Target
from toolchain.damage import criterion_named
from toolchain.deliver import refuse_foreign_folder, replace_folder, work_folder
from toolchain.errors import BudgetError, InputError
from toolchain.foresight import foresee
from toolchain.learning import learned, learner_named, require_parts, settled
from toolchain.load import load
from toolchain.mixing import mixed, require_mixable
from toolchain.outlook import Absent, Outlook, outlook, unmeasured_baseline, with_calibration
from toolchain.picture.page import draw
from toolchain.plain import to_plain
from toolchain.planning import decide, decide_once, replay
from toolchain.program.blocks import blocks
from toolchain.program.capture import fingerprint
from toolchain.program.channels import analyse, examine
from toolchain.program.cost import cost
from toolchain.proof import Proof, prove
from toolchain.prune.planfile import plan_text
from toolchain.reaching import Reached, reached
from toolchain.repair import repaired
from toolchain.report.folder import write_reports
from toolchain.run import Run, clocked, forget
from toolchain.sizing import require_sizes
from toolchain.specialising import specialised
from toolchain.stages import Stages
from toolchain.storing import form_named, kept, packed
from toolchain.train.crew import crew, help_with
from toolchain.train.data import open_data
from toolchain.train.links import Links
from toolchain.train.metric import resolve
from toolchain.tuning import schedule_named, tune
from toolchain.values import PLANNER, Program, Report, Request
from toolchain.verify.micro import require_micro

ATTEMPTS: Final = 3
"""How often a network may be planned and fine-tuned before the run gives up on a measured overshoot."""


def compress(request: Request, progress: Progress | None = None) -> Report:
    """The main job: a smaller network under the budget, its files and the proof, in `request.out`.

    Raises:
        CompressError: by kind of failure; nothing is written to `request.out` then.
    """
    run = open_run(request, progress or Silent())
    with best_plan_kept(run):
        return compress_run(run, baseline_of(run))


def compress_run(run: Run, baseline: Baseline) -> Report:
    """`compress` for a run that is open and whose baseline is known."""
    request = run.request
    choice = replay(run, request.plan) if request.plan else learned(run, baseline, _decide(run, baseline))
    for attempt in range(ATTEMPTS):
        choice = repaired(choice.run, settled(run, choice))
        choice, tuned = tune(run, choice)
        program = choice.program if tuned is None else tuned.program
        choice, program, weights = kept(run, choice, program)
        proof = prove(choice.run, program, choice, baseline, attempt)
        if any(entry.name == "ms" and entry.verdict != "held" for entry in proof.limits):
            forget(run, {measured.sha256 for measured in proof.measurements.values()})
        again = _overshoot(run, choice, baseline, proof) if attempt + 1 < ATTEMPTS else None
        if again is None:
            break
        choice = again
    foreseen = _say_what_is_predicted(run, program, choice)
    proof, small, storage = packed(run, proof, baseline, weights)
    found = findings.record(run, "compress", baseline, choice, tuned, proof, foreseen, storage)
    report = Report(record=found, exit_code=found["exit_code"])
    _deliver(run, proof, choice, report, small)
    return report


def open_run(request: Request, progress: Progress, *, measuring: bool = False) -> Run:
    """Check, load and connect everything a run needs; fails before anything is written.

    Where a target has no driver its device is absent, unless the run is `measuring` and nothing else.
    """
    refuse_foreign_folder(request.out)
    _require_work(request)
    (request,) = with_calibration([request])
    target, device, there = _connected(request, measuring=measuring)
    require_formats(request.formats)
    if request.budget_ram is not None:
        require_micro(request.formats)
    criterion_named(request)
    schedule_named(request)
    learner_named(request)
    require_mixable(request)
    form_named(request)
    metric = resolve(request.metric)
    seconds: dict[str, float] = {}
    program, data, special = _read(request, progress, seconds)
    require_parts(request, program)
    crew().ready()
    with clocked(seconds, "capture"):
        progress.stage("Analysing the channels")
        channels = analyse(program)
    return Run(
        request=request,
        program=program,
        channels=channels,
        data=data,
        metric=metric,
        target=target,
        device=device,
        stages=Stages(root=work_folder(request.out)),
        material=material_of(program, data, f"{request.model.name} {fingerprint(program)[:16]}"),
        progress=progress,
        seconds=seconds,
        notes=[*_first_notes(data), *([special] if special else [])],
        reached=there,
    )


def _read(
    request: Request, progress: Progress, seconds: dict[str, float]
) -> tuple[Program, Data | None, str]:
    """The network and the data, specialised where that is asked for, and a note that says so."""
    with clocked(seconds, "capture"):
        progress.stage("Loading the network")
        program = load(
            request.model,
            input_shape=request.input_shape,
            arch=request.arch,
            trust_pickle=request.trust_pickle,
        )
    require_sizes(program, request.allow_resize)
    data = None
    if request.data is not None:
        with clocked(seconds, "data"):
            progress.stage("Reading the data")
            data = open_data(request.data, preprocessing=request.preprocessing, program_inputs=program.inputs)
        program = replace(program, classes=program.classes or data.classes)
    return specialised(request, program, data)


def help_training(request: Request) -> int:
    """What every process but the first of `torchrun` does: a share of every training step of that one's run.

    Returns the first one's exit code.

    Raises:
        CompressError: it cannot go on, and the first process has not heard of it.
    """
    links = Links()
    try:
        _, data, _ = _read(request, Silent(), {})
        return help_with(links, data)
    except Exception as error:
        code = links.fail(error)
        if code is None:
            raise
        return code


def on_target(run: Run, request: Request) -> Run:
    """An open run for another target: network, data and finished stages are shared, the log is its own."""
    target, device, there = _connected(request)
    notes, seconds = list(run.notes), dict[str, float]()
    return replace(
        run, request=request, target=target, device=device, notes=notes, seconds=seconds, reached=there
    )


def _connected(request: Request, *, measuring: bool = False) -> tuple[Target, Device, Reached | None]:
    """The target with its device: the one asked for by name, else this machine, else none at hand."""
    target, there = _target(request.target), None
    if request.device is not None:
        there = reached(target, request.device)
        if there.device is not None:
            return there.target, there.device, there
    absent = target.calibration is not None and not measuring
    return target, Absent(target=target) if absent else target.connect(), there


def _require_work(request: Request) -> None:
    """`--resume` and `--finish` speak of an earlier run; say so when there is none."""
    work = work_folder(request.out)
    if (request.resume or request.finish) and not work.is_dir():
        raise InputError(
            f"nothing to resume: {work} does not exist", hint="run without --resume and --finish"
        )


def _first_notes(data: Data | None) -> list[str]:
    if data is None:
        return ["no data given: accuracy not measured; int8 not possible; no fine-tuning"]
    if data.skipped:
        some = ", ".join(data.skipped[:3])
        return [f"{len(data.skipped)} unreadable images were skipped: {some}"]
    return []


def _overshoot(run: Run, choice: Choice, baseline: Baseline, proof: Proof) -> Choice | None:
    """A new choice when the final measurement is over the budget; None when a plan was replayed."""
    over = [entry for entry in proof.limits if entry.name == "ms" and entry.verdict == "over"]
    if not over or over[0].value is None or run.request.plan is not None:
        return None
    run.notes.append("the final measurement was over the budget: planned again with what it showed")
    corrected = close_loop_again(choice, over[0].value)
    return corrected or decide(run, baseline, whole_allowed=not choice.plan.changes_nothing)


def plan(request: Request, progress: Progress | None = None) -> Report:
    """Decide only: the plan is written to `request.out`/plan.json, with the report of what it rests on."""
    run = open_run(request, progress or Silent())
    with best_plan_kept(run):
        return plan_run(run, baseline_of(run))


def plan_run(run: Run, baseline: Baseline) -> Report:
    """`plan` for a run that is open and whose baseline is known."""
    choice = _decide(run, baseline)
    foreseen = _say_what_is_predicted(run, choice.program, choice)
    found = findings.record(run, "plan", baseline, choice, None, None, foreseen)
    report = Report(record=found, exit_code=found["exit_code"])
    replace_folder(run.request.out, lambda folder: _write_texts(folder, choice, report))
    return report


def bench(request: Request, progress: Progress | None = None) -> Report:
    """Measure the network as it is, in every runtime and precision that the request allows."""
    with tempfile.TemporaryDirectory(prefix="edgefit-bench-") as folder:
        out = Path(folder) / "bench"
        run = open_run(replace(request, out=out), progress or Silent(), measuring=True)
        baseline = measure_baseline(run, combinations(run))
        found = findings.record(run, "bench", baseline, None, None, None)
    return Report(record=found, exit_code=found["exit_code"])


def inspect(request: Request, *, picture: Path | None = None) -> Mapping[str, Any]:
    """Inputs, outputs, cost, channel groups with their members, and what is frozen and why.

    Args:
        request: only what describes the network is read.
        picture: an .svg or .html file to draw the graph in.

    Raises:
        CompressError: the network cannot be loaded, or the picture not written.
    """
    program = load(
        request.model, input_shape=request.input_shape, arch=request.arch, trust_pickle=request.trust_pickle
    )
    analysis = examine(program)
    channels = analysis.channels
    if picture is not None:
        draw(analysis, program.name, picture)
    return {
        "schema": "edgefit.inspect/1",
        "name": program.name,
        "fingerprint": fingerprint(program),
        "inputs": to_plain(program.inputs),
        "outputs": to_plain(program.outputs),
        "cost": to_plain(cost(program)),
        "groups": [
            {
                "name": group.name,
                "size": group.size,
                "minimum": group.minimum,
                "note": group.note,
                "members": [{"parameter": m.parameter, "dim": m.dim} for m in group.members],
            }
            for group in channels.groups
        ],
        "blocks": [block.name for block in blocks(program)],
        "frozen": to_plain(channels.frozen),
        "unknown": dict(channels.unknown),
        "picture": None if picture is None else str(picture),
    }


def _target(asked: str) -> Target:
    """The target `NAME` or `NAME:VARIANT`."""
    name, _, variant = asked.partition(":")
    target: Target = registry.find("targets", "TARGET", name)
    if target.calibration is None and variant:
        raise InputError(f"target '{name}' has no variants", hint=f"--target {name}")
    return target


def baseline_of(run: Run) -> Baseline:
    """The network as handed in, on the run's target."""
    if run.target.calibration is not None:
        return unmeasured_baseline(run)
    return measure_baseline(run, combinations(run))


def _say_what_is_predicted(run: Run, program: Program, choice: Choice) -> Outlook | None:
    if run.target.calibration is None:
        return None
    foreseen = outlook(run, program, choice.combination)
    run.notes.append(foreseen.line)
    return foreseen


def _decide(run: Run, baseline: Baseline) -> Choice:
    choice = foresee(run) if run.target.calibration is not None else decide_once(run, baseline)
    return mixed(run, baseline, choice) if run.request.learning.method == PLANNER else choice


@contextmanager
def best_plan_kept(run: Run) -> Iterator[None]:
    """Keep the best plan of an unreachable budget where the user can look at it."""
    try:
        yield
    except BudgetError as error:
        if error.plan is not None:
            path = run.stages.root / "best-plan.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(plan_text(error.plan), encoding="utf-8")
            error.hint = f"{error.hint}; the best plan is in {path}"
        raise


def _deliver(run: Run, proof: Proof, choice: Choice, report: Report, small: Sequence[Path]) -> None:
    """The result folder: model files, packed ones, plan and report in three forms."""

    def fill(folder: Path) -> None:
        for artifact in proof.artifacts.values():
            copy_file(artifact, folder)
        for path in small:
            shutil.copy2(path, folder / path.name)
        _write_texts(folder, choice, report)

    with run.stage("Writing the result", "deliver"):
        replace_folder(run.request.out, fill)


def _write_texts(folder: Path, choice: Choice, report: Report) -> None:
    (folder / "plan.json").write_text(plan_text(choice.plan), encoding="utf-8")
    write_reports(report.record, folder)
