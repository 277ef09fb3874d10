"""What a gate judges besides the ratio of latencies: the budget, the file, the memory, the answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from toolchain.contracts import Device, ModelFile, Progress, Sampling
from toolchain.errors import InputError
from toolchain.latency.intervals import verdict
from toolchain.latency.sequential import Answer
from toolchain.placement import newly_away
from toolchain.plain import to_plain
from toolchain.report.operators import fallbacks, kinds
from toolchain.values import Artifact, Measurement, Preprocessing

if TYPE_CHECKING:
    from toolchain.gate.sides import Side

_OF_VERDICT: Final[dict[str, Answer]] = {"held": "pass", "over": "fail"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The optional gates; None: not asked. Sizes and memory in 10^6 bytes, growth as a ratio minus 1.

    `max_instructions` is the growth of an inference's instructions on the device `emulated`. `max_fallbacks`
    is how many operators more than in the baseline may leave the accelerator.
    `min_agreement` is in percent of samples, `max_drop` in the metric's unit; `data` feeds both.
    """

    budget_ms: float | None = None
    max_mb: float | None = None
    max_growth: float | None = None
    max_memory_mb: float | None = None
    max_memory_growth: float | None = None
    max_instructions: float | None = None
    emulated: str = ""
    max_fallbacks: int | None = None
    min_agreement: float | None = None
    max_drop: float | None = None
    data: str | None = None
    metric: str = "top1"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One judgement: `value` against `limit` in `unit`, with its interval where it has one."""

    name: str
    verdict: Literal["pass", "fail", "inconclusive"]
    value: float
    limit: float
    unit: str
    low: float | None = None
    high: float | None = None
    detail: str = ""


def judge_limits(
    limits: Limits,
    device: Device,
    candidate: Side,
    baseline: Side,
    measured: Measurement,
    threads: int,
    progress: Progress,
) -> tuple[Judged, ...]:
    """Every gate that was asked for, in a fixed order.

    Raises:
        InputError: one needs a model file where only figures were given, or is not told by the device.
    """
    found = list(_of_budget(limits, measured))
    found += _of_size(limits, candidate, baseline)
    found += _of_memory(limits, device, candidate, baseline, threads, progress)
    found += _of_instructions(limits, candidate, baseline, progress)
    found += _of_operators(limits, device, candidate, baseline, threads, progress)
    found += _of_answers(limits, candidate, baseline, progress)
    return tuple(found)


def _of_budget(limits: Limits, measured: Measurement) -> Iterator[Judged]:
    if limits.budget_ms is not None:
        answer = _OF_VERDICT.get(verdict(measured, limits.budget_ms), "inconclusive")
        yield Judged(
            name="budget", verdict=answer, value=measured.p50_ms, low=measured.p50_low_ms,
            high=measured.p50_high_ms, limit=limits.budget_ms, unit="ms",
        )  # fmt: skip


def _of_size(limits: Limits, candidate: Side, baseline: Side) -> Iterator[Judged]:
    if limits.max_mb is not None:
        yield _at_most("file size", _file(candidate, "--max-mb").size_bytes / 1e6, limits.max_mb, "MB")
    if limits.max_growth is not None:
        new, old = (_file(side, "--max-growth").size_bytes for side in (candidate, baseline))
        yield _at_most("file growth", new / old, 1 + limits.max_growth, "x")


def _of_memory(
    limits: Limits, device: Device, candidate: Side, baseline: Side, threads: int, progress: Progress
) -> Iterator[Judged]:
    """What the process grows by when it loads and runs the file alone, runtime library not counted."""

    def peak(side: Side) -> float:
        sampling = Sampling(trials=1, runs=5, warmup=2, trial_seconds=0.2, threads=threads)
        found = device.measure((_file(side, "--max-memory-mb"),), sampling, progress)[0].peak_bytes
        if found is None:
            raise InputError("this device does not tell the peak memory", hint="leave out --max-memory-...")
        return found / 1e6

    if limits.max_memory_mb is None and limits.max_memory_growth is None:
        return
    progress.stage("Peak memory")
    new = peak(candidate)
    if limits.max_memory_mb is not None:
        yield _at_most("peak memory", new, limits.max_memory_mb, "MB")
    if limits.max_memory_growth is not None:
        yield _at_most("peak memory growth", new / peak(baseline), 1 + limits.max_memory_growth, "x")


def _of_instructions(limits: Limits, candidate: Side, baseline: Side, progress: Progress) -> Iterator[Judged]:
    """The least count of each file's inferences: of a core that is emulated, and no time."""
    if limits.max_instructions is None:
        return
    from toolchain.reaching import connect

    artifacts = [_file(side, "--max-instructions") for side in (candidate, baseline)]
    progress.stage(f"Counting instructions on {limits.emulated}")
    connection = connect(limits.emulated)
    files = [ModelFile(path=a.path, runtime=a.runtime, sha256=a.sha256) for a in artifacts]
    counts = [one.instructions for one in connection.check(files, progress)]
    if counts[0] is None or counts[1] is None:
        raise InputError(f"{limits.emulated} counts no instructions", hint="--emulated qemu:cortex-a53")
    new, old = min(counts[0]), min(counts[1])
    detail = f"{new:,} against {old:,} on {limits.emulated}, emulated: a count, no time"
    judged = _at_most("instructions", new / old, 1 + limits.max_instructions, "x")
    yield replace(judged, detail=detail)


def _of_operators(
    limits: Limits, device: Device, candidate: Side, baseline: Side, threads: int, progress: Progress
) -> Iterator[Judged]:
    """Operators that leave the accelerator, as the runtime tells, beyond those that did in the baseline."""
    if limits.max_fallbacks is None:
        return
    sides = [_file(side, "--max-fallbacks") for side in (candidate, baseline)]
    progress.stage("Operators on the accelerator")
    sampling = Sampling(trials=1, runs=1, warmup=0, trial_seconds=0.1, threads=threads, placement=True)
    new, old = (measured.placement for measured in device.measure(sides, sampling, progress))
    if new is None or old is None:
        runtime = sides[0 if new is None else 1].runtime
        raise InputError(
            f"{runtime} does not tell here which operators leave an accelerator",
            hint="LiteRT tells through the C runner, Core ML on an iPhone; leave out --max-fallbacks",
        )
    left = newly_away(new, old)
    judged = _at_most("operators newly off the accelerator", len(left), limits.max_fallbacks, "operators")
    beyond = f"; new: {kinds(to_plain(left))}" if left else ""
    yield replace(judged, detail=f"{fallbacks(to_plain(new))}{beyond}")


def _of_answers(limits: Limits, candidate: Side, baseline: Side, progress: Progress) -> Iterator[Judged]:
    if limits.min_agreement is None and limits.max_drop is None:
        return
    from toolchain.gate.answers import agreeing, answering
    from toolchain.train.metric import resolve

    progress.stage("Comparing the answers")
    files = [_file(side, "--min-agreement") for side in (candidate, baseline)]
    new, old = answering(files, limits.data, limits.preprocessing)
    if limits.min_agreement is not None:
        value, samples = agreeing(new, old)
        on = f"of {samples} {'random inputs' if new.data is None else 'samples'}"
        enough: Answer = "pass" if value >= limits.min_agreement else "fail"
        yield Judged(
            name="agreement", verdict=enough, value=value, limit=limits.min_agreement, unit="%", detail=on
        )
    if limits.max_drop is not None:
        if limits.data is None:
            raise InputError("--max-drop compares accuracies, but there is no --data")
        metric = resolve(limits.metric)
        lost = metric.lost(old.score(metric), new.score(metric))
        yield _at_most(f"drop of {metric.name}", lost, limits.max_drop, metric.unit)


def _file(side: Side, flag: str) -> Artifact:
    if side.artifact is None:
        raise InputError(f"{flag} needs model files, and {side.label} holds figures only")
    return side.artifact


def _at_most(name: str, value: float, limit: float, unit: str) -> Judged:
    answer: Answer = "pass" if value <= limit else "fail"
    return Judged(name=name, verdict=answer, value=value, limit=limit, unit=unit)
