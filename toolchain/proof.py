"""Proving: every delivered file reopened, compared, scored and measured; every limit judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from toolchain.assembly import FLOAT_OF, Kind, build, open_session, quantizers, runner
from toolchain.baseline import Baseline, allowed_drop
from toolchain.closing import Choice
from toolchain.contracts import Sampling
from toolchain.errors import ConversionError
from toolchain.latency.intervals import verdict
from toolchain.program.capture import example_inputs, fingerprint
from toolchain.program.cost import cost
from toolchain.reaching import checks_there
from toolchain.run import Combination, Run, measure, note_disturbed, remembered_score
from toolchain.train.metric import Score, evaluate, program_runner
from toolchain.values import Artifact, Budget, Check, Cost, Measurement, Precision, Program, Verdict
from toolchain.verify.coreml import check_coreml
from toolchain.verify.micro import check_micro
from toolchain.verify.parity import check_float, check_quantized

FINAL: Final = Sampling(trials=10, runs=50, trial_seconds=0.4, placement=True)
CLEARER: Final = 2
"""How often an inconclusive measurement is repeated with twice the trials."""
AGREEING: Final = 500
"""Validation samples, about, on which a quantized file's decisions are compared with the program's."""
RUINED: Final = 0.1
"""Share of the metric whose loss is worth a note when --max-drop sets no limit."""
COMPARED: Final = 32
"""Real inputs on which float files are compared with the program."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One line of the budget: what was asked, what was found, and the verdict."""

    name: str
    limit: float
    value: float | None
    unit: str
    verdict: Verdict
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is known of the delivered files, each statement with its evidence.

    `combination` is what the verdict speaks of: the choice's, or float where quantization cost too much.
    """

    combination: Combination
    program: Program
    cost: Cost
    score: Score | None
    artifacts: Mapping[Kind, Artifact]
    scores: Mapping[Kind, Score]
    measurements: Mapping[Kind, Measurement]
    baseline: Measurement | None
    checks: tuple[Check, ...]
    limits: tuple[Limit, ...]
    verdict: Verdict


def prove(run: Run, program: Program, choice: Choice, baseline: Baseline, attempt: int) -> Proof:
    """Build, check, score and measure the files of `program`."""
    with run.stage("Exporting", "export"):
        artifacts = _files(run, program, choice)
    with run.stage("Verifying every file", "verify"):
        checks = [
            check for kind, artifact in artifacts.items() for check in _checks(run, program, kind, artifact)
        ]
    checks += _checked_there(run, artifacts)
    scores: dict[Kind, Score] = {}
    score = None
    if run.data is not None:
        with run.stage("Metric of the files", "evaluate"):
            score = program_score(run, program)
            scores = {k: s for k, a in artifacts.items() if (s := _file_score(run, a)) is not None}
    before: Measurement | None = None
    measurements: Mapping[Kind, Measurement] = {}
    if baseline.artifacts:  # else the device is not at hand
        with run.stage("Measuring original and result, interleaved", "measure"):
            before, measurements = _measure(run, artifacts, choice, baseline, attempt)
    choice = _without_costly_quantization(run, choice, score, scores, measurements)
    checks += _in_micro(run, artifacts, choice)
    _warn_of_damage(run, baseline, scores.get(kind_of(run, choice.combination)))
    limits = judge(run, choice, artifacts, measurements, cost(program), baseline, scores)
    return Proof(
        combination=choice.combination,
        program=program,
        cost=cost(program),
        score=score,
        artifacts=artifacts,
        scores=scores,
        measurements=measurements,
        baseline=before,
        checks=tuple(checks),
        limits=limits,
        verdict=_overall(limits),
    )


def _in_micro(run: Run, artifacts: Mapping[Kind, Artifact], choice: Choice) -> tuple[Check, ...]:
    """Whether TFLite Micro runs the TFLite file of the chosen precision in the memory that it may have."""
    if run.request.budget_ram is None:
        return ()
    precision = choice.combination[1]
    file = artifacts.get(("tflite", precision))
    if file is None:
        detail = f"there is no TFLite file in {precision}, the precision that was chosen"
        return (Check(name="TFLite Micro", subject="no file", status="fail", detail=detail),)
    with run.stage("TFLite Micro", "micro"):
        return (check_micro(file.path, run.request.budget_ram),)


def _checked_there(run: Run, artifacts: Mapping[Kind, Artifact]) -> tuple[Check, ...]:
    """The files' outputs on the device that was asked for by name."""
    if run.reached is None:
        return ()
    with run.stage(f"Verifying every file on {run.reached.name}", "verify"):
        checks = checks_there(run.reached, list(artifacts.values()), run.progress)
    if run.reached.device is None:
        run.notes.append(f"{run.reached.name} has no clock: outputs were checked there, no time was taken")
    return checks


def _files(run: Run, program: Program, choice: Choice) -> dict[Kind, Artifact]:
    """Every file to deliver. A format that cannot keep single layers in float gets all of them in int8."""
    found: dict[Kind, Artifact] = {}
    for kind in kinds_to_deliver(run, choice):
        try:
            made = build(program, [kind], run.stages, run.material, choice.plan.in_float)
        except ConversionError as error:
            if kind[1] != "mixed" or kind == kind_of(run, choice.combination):
                raise
            run.notes.append(f"{kind[0]}: {error}; all of its layers are in int8")
            made = build(program, [(kind[0], "int8")], run.stages, run.material)
        found |= made
    return found


def _warn_of_damage(run: Run, baseline: Baseline, score: Score | None) -> None:
    """A held budget says nothing of the metric; say it where no limit does."""
    if score is None or baseline.score is None or run.request.budget.max_drop is not None:
        return
    drop = run.metric.lost(baseline.score.value, score.value)
    if drop > RUINED * abs(baseline.score.value):
        advice = "more --epochs may win some back, --max-drop makes it a limit"
        run.notes.append(f"the metric lost {drop:.1f} {score.unit}: {advice}")


def _without_costly_quantization(
    run: Run,
    choice: Choice,
    score: Score | None,
    scores: Mapping[Kind, Score],
    measurements: Mapping[Kind, Measurement],
) -> Choice:
    """Fall back to float where int8 costs more points than allowed and float holds the budget too."""
    runtime, precision = choice.combination
    quantized = scores.get(kind_of(run, choice.combination))
    if precision == "fp32" or score is None or quantized is None or run.request.plan is not None:
        return choice
    drop = run.metric.lost(score.value, quantized.value)
    allowed = allowed_drop(run)
    if drop <= allowed:
        return choice
    plain = (runtime, FLOAT_OF[run.runtime(runtime).format])
    budget, measured = run.request.budget.ms, measurements.get(kind_of(run, plain))
    costs = f"{precision} costs {drop:.2f} points of the result (allowed: {allowed:g})"
    too_slow = measured is not None and budget is not None and measured.p50_high_ms >= budget
    if measured is None or too_slow or run.request.budget.mb is not None:
        run.notes.append(f"{costs}; float would not hold the budget, so it stays")
        return choice
    run.notes.append(f"{costs}: float is delivered for the budget instead")
    return replace(choice, combination=plain)


def kinds_to_deliver(run: Run, choice: Choice) -> tuple[Kind, ...]:
    """Every requested format in float, and quantized when the choice is and the format can be.

    Weights that are stored in few values are delivered as they are.
    """
    kinds: list[Kind] = []
    for name in run.request.formats:
        kinds.append((name, FLOAT_OF[name]))
        if choice.combination[1] != "fp32" and run.request.storage is None:  # stored weights are of floats
            offered = [
                q for q in quantizers(name).values() if run.material.samples is not None or not q.needs_data
            ]
            kinds += [(name, _mixed(choice, q.precision)) for q in offered]
    chosen = kind_of(run, choice.combination)
    return tuple(dict.fromkeys([*kinds, chosen]))


def _mixed(choice: Choice, precision: Precision) -> Precision:
    """Int8 files of a mixed choice are mixed too; int8 weights alone keep their name."""
    return "mixed" if precision == "int8" and choice.combination[1] == "mixed" else precision


def kind_of(run: Run, combination: Combination) -> Kind:
    """The file kind that a combination executes."""
    return (run.runtime(combination[0]).format, combination[1])


def _checks(run: Run, program: Program, kind: Kind, artifact: Artifact) -> tuple[Check, ...]:
    session = open_session(artifact)
    subject = artifact.path.name
    if run.material.samples is not None:
        inputs = tuple(part[:COMPARED] for part in run.material.samples[0])
    else:
        inputs = tuple(x.numpy() for x in example_inputs(program, 4, seed=run.request.seed))
    if session is None or kind[0] == "coreml":
        return check_coreml(artifact, program, inputs, subject=subject, session=session)
    if kind[1] == FLOAT_OF[kind[0]]:
        return (check_float(program, session, inputs, subject=subject),)
    if run.data is None:
        return check_quantized(program, session, inputs, (), subject=subject)
    every = max(1, run.data.validation_size // AGREEING)
    return check_quantized(program, session, inputs, run.data.validation(256), subject=subject, every=every)


def program_score(run: Run, program: Program) -> Score:
    """The program's metric, computed once and kept with the finished stages."""
    assert run.data is not None
    data = run.data
    inputs = [fingerprint(program), data.fingerprint(), run.metric.name, run.request.preprocessing]
    return remembered_score(run, "score", inputs, lambda: evaluate(program_runner(program), data, run.metric))


def _file_score(run: Run, artifact: Artifact) -> Score | None:
    assert run.data is not None
    data, session = run.data, open_session(artifact)
    if session is None:
        return None
    inputs = [artifact.sha256, data.fingerprint(), run.metric.name, run.request.preprocessing]
    return remembered_score(run, "score", inputs, lambda: evaluate(runner(session), data, run.metric))


def _measure(
    run: Run, artifacts: Mapping[Kind, Artifact], choice: Choice, baseline: Baseline, attempt: int
) -> tuple[Measurement | None, dict[Kind, Measurement]]:
    """The best float original and every file the target runs, in one interleaved measurement.

    While the chosen file's interval straddles the budget the whole is measured again with twice the trials;
    once also where all of it is over a budget that the same widths were measured to hold before.
    """
    runtimes = {r.format: r for r in run.target.runtimes}
    runnable = {k: a for k, a in artifacts.items() if k[0] in runtimes and runtimes[k[0]].runs(k[1])}
    original = baseline.artifacts[best_float(baseline, choice.combination)]
    chosen, sampling = kind_of(run, choice.combination), FINAL
    for repeat in range(CLEARER + 1):
        times = measure(run, [original, *runnable.values()], sampling, attempt=attempt * 10 + repeat)
        results = dict(zip(runnable, times[1:], strict=True))
        limit = run.request.budget.ms
        if limit is None:
            break
        judged = verdict(results[chosen], limit)
        if judged == "held" or (judged == "over" and (repeat or not _has_held(choice, limit))):
            break
        if judged == "over":
            run.notes.append(
                f"result measured again with twice the trials: {results[chosen].p50_ms:.4g} ms is over the "
                "budget, which these widths held before fine-tuning"
            )
        sampling = replace(sampling, trials=2 * sampling.trials)
    if chosen in results:
        note_disturbed(run, "result", results[chosen])
    return times[0], results


def _has_held(choice: Choice, limit_ms: float) -> bool:
    """Whether the closed loop that ended with this choice measured it under the limit.

    It takes a network that held wherever there is one.
    """
    begun = max((i for i, found in enumerate(choice.rounds) if found.number == 1), default=0)
    return any(verdict(found.measured, limit_ms) == "held" for found in choice.rounds[begun:])


def best_float(baseline: Baseline, chosen: Combination) -> Combination:
    """The original's fastest float combination; without any the chosen one, all of it in int8."""
    floats = [c for c in baseline.artifacts if c[1] == "fp32"]
    if floats:
        return min(floats, key=lambda c: baseline.measurements[c].p50_ms)
    return (chosen[0], "int8") if chosen[1] == "mixed" else chosen


def judge(
    run: Run,
    choice: Choice,
    artifacts: Mapping[Kind, Artifact],
    measurements: Mapping[Kind, Measurement],
    amounts: Cost,
    baseline: Baseline,
    scores: Mapping[Kind, Score],
) -> tuple[Limit, ...]:
    """Each limit of the budget against what was found for the chosen file."""
    budget, kind = run.request.budget, kind_of(run, choice.combination)
    found: list[Limit] = []
    if budget.ms is not None:
        found.append(_judge_ms(budget.ms, measurements.get(kind)))
    if budget.mb is not None:
        found.append(_at_most("mb", budget.mb, artifacts[kind].size_bytes / 1e6, "MB"))
    for name in ("macs", "params", "neurons"):
        limit = getattr(budget, name)
        if limit is not None:
            found.append(_at_most(name, limit, getattr(amounts, name), ""))
    if budget.max_drop is not None:
        found.append(_judge_drop(run, budget, baseline, scores.get(kind)))
    return tuple(found)


def _judge_ms(limit: float, measured: Measurement | None) -> Limit:
    if measured is None:
        return Limit(name="ms", limit=limit, value=None, unit="ms", verdict="not measured")
    return Limit(
        name="ms",
        limit=limit,
        value=measured.p50_ms,
        low=measured.p50_low_ms,
        high=measured.p50_high_ms,
        unit="ms",
        verdict=verdict(measured, limit),
    )


def _judge_drop(run: Run, budget: Budget, baseline: Baseline, score: Score | None) -> Limit:
    assert budget.max_drop is not None
    if baseline.score is None or score is None:
        return Limit(
            name="max_drop", limit=budget.max_drop, value=None, unit="points", verdict="not measured"
        )
    drop = run.metric.lost(baseline.score.value, score.value)
    return _at_most("max_drop", budget.max_drop, drop, "points")


def _at_most(name: str, limit: float, value: float, unit: str) -> Limit:
    judged: Verdict = "held" if value <= limit else "over"
    return Limit(name=name, limit=limit, value=value, unit=unit, verdict=judged)


def _overall(limits: Sequence[Limit]) -> Verdict:
    order: tuple[Verdict, ...] = ("over", "inconclusive", "not measured", "held")
    return min((entry.verdict for entry in limits), key=order.index, default="held")
