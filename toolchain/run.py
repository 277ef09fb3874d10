"""One run's working context, and the two things every step does with it: build files and measure them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from toolchain.assembly import Material, build
from toolchain.contracts import Data, Device, Progress, Runtime, Sampling, Target
from toolchain.input_view import InputView
from toolchain.latency.intervals import scatter
from toolchain.plain import from_plain, to_plain
from toolchain.program.capture import fingerprint
from toolchain.program.entrance import seeing_whole
from toolchain.program.resize import fronted, image_size
from toolchain.reaching import Reached
from toolchain.stages import Stages
from toolchain.train.metric import Metric, Score
from toolchain.values import Artifact, Channels, Measurement, Precision, Program, Request

Combination = tuple[str, Precision]
T = TypeVar("T")

MEASUREMENTS: Final = "measurements.json"
SCATTERED: Final = 1.25
"""Trials are said to disagree where the 90th percentile of their medians is over the 10th by this factor."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every step of one run shares. `seconds` and `notes` are the run's log; all else is fixed.

    `kept` holds what `once` has made; the cases of a front share it. `origin` is the run at the network's own
    input size, where this one is at a smaller one, or sees what `view` leaves of the input. `reached` is the
    device that was asked for by name.
    `learned_from` is the network as handed in where `program` is what it became while it learned what to
    remove.
    """

    request: Request
    program: Program
    channels: Channels
    data: Data | None
    metric: Metric
    target: Target
    device: Device
    stages: Stages
    material: Material
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    kept: dict[object, Any] = field(default_factory=dict)
    origin: Run | None = None
    reached: Reached | None = None
    learned_from: Program | None = None
    view: InputView | None = None

    def runtime(self, name: str) -> Runtime:
        """The target's runtime called `name`."""
        return next(r for r in self.target.runtimes if r.name == name)

    @property
    def given(self) -> Program:
        """The network as handed in, at its own input size."""
        whole = self.program if self.origin is None else self.origin.program
        return self.learned_from or whole

    @property
    def resize(self) -> tuple[int, int] | None:
        """(height, width) of the input where it is not the network's own."""
        return None if self.origin is None or self.view is not None else image_size(self.program)

    def facing(self, program: Program) -> Program:
        """A program for this run's input behind what makes that of the whole one."""
        if self.origin is None:
            return program
        if self.view is not None:
            return seeing_whole(program, self.view)
        return fronted(program, image_size(self.origin.program))

    def once(self, name: object, make: Callable[[], T]) -> T:
        """What `make` gives, made once for a network and a target; the budget's amount has no part in it."""
        key = (name, fingerprint(self.program), self.request.target)
        if key not in self.kept:
            self.kept[key] = make()
        found: T = self.kept[key]
        return found

    @contextmanager
    def stage(self, title: str, clock: str) -> Iterator[None]:
        """Announce a stage and add its wall time to `seconds[clock]`."""
        self.progress.stage(title)
        with clocked(self.seconds, clock):
            yield


@contextmanager
def clocked(seconds: dict[str, float], clock: str) -> Iterator[None]:
    """Add the wall time of the body to `seconds[clock]`."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[clock] = seconds.get(clock, 0.0) + time.monotonic() - start


def build_for(
    run: Run, program: Program, combinations: Sequence[Combination], in_float: Sequence[str] = ()
) -> dict[Combination, Artifact]:
    """The program's file for each (runtime, precision), the layers `in_float` not quantized."""
    kinds = [(run.runtime(name).format, precision) for name, precision in combinations]
    files = build(program, kinds, run.stages, run.material, in_float)
    return {c: files[k] for c, k in zip(combinations, kinds, strict=True)}


def measure(
    run: Run, artifacts: Sequence[Artifact], sampling: Sampling, *, attempt: int = 0
) -> tuple[Measurement, ...]:
    """Interleaved measurements on the target; finished ones are reused while the conditions are the same."""
    conditions = [run.device.conditions(run.runtime(a.runtime), sampling.threads) for a in artifacts]
    inputs = {
        "files": [a.sha256 for a in artifacts],
        "sampling": to_plain(sampling),
        "attempt": attempt,
        "conditions": [[c.device, c.os, c.cpu, c.runtime, c.runtime_version, c.threads] for c in conditions],
    }

    def make(folder: Path) -> None:
        found = run.device.measure(artifacts, sampling, run.progress)
        (folder / MEASUREMENTS).write_text(json.dumps(to_plain(found)), encoding="utf-8")

    folder, reused = run.stages.once("measured", inputs, make)
    if reused:
        run.notes.append(f"measurement of {len(artifacts)} files reused: taken earlier under like conditions")
    text = (folder / MEASUREMENTS).read_text(encoding="utf-8")
    return tuple(from_plain(Measurement, entry) for entry in json.loads(text))


def disturbed(measured: Measurement) -> str:
    """What to say of a measurement whose trials disagree; empty where they do not."""
    low, high = scatter(measured)
    if high <= SCATTERED * low:
        return ""
    return (
        f"its trials range from {low:.4g} to {high:.4g} ms: something else used the device, or its clock "
        "changed; measure while it is quiet"
    )


def note_disturbed(run: Run, what: str, measured: Measurement) -> None:
    """Add a note on `what` was measured where the trials disagree."""
    doubt = disturbed(measured)
    if doubt:
        run.notes.append(f"{what} in {measured.runtime} {measured.precision}: {doubt}")


def forget(run: Run, shas: Collection[str]) -> None:
    """What was measured of these files is measured anew when it is asked for again.

    For files that missed a limit: whoever runs the same command again doubts the measurement.
    """
    for folder in run.stages.all("measured"):
        found = json.loads((folder / MEASUREMENTS).read_text(encoding="utf-8"))
        if any(entry["sha256"] in shas for entry in found):
            shutil.rmtree(folder, ignore_errors=True)


def remembered_score(run: Run, name: str, inputs: object, compute: Callable[[], Score]) -> Score:
    """A score computed once and kept with the finished stages."""

    def make(folder: Path) -> None:
        (folder / "score.json").write_text(json.dumps(to_plain(compute())), encoding="utf-8")

    folder, _ = run.stages.once(name, inputs, make)
    return from_plain(Score, json.loads((folder / "score.json").read_text(encoding="utf-8")))
