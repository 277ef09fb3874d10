"""What a plug-in must offer. A plug-in is one file that ends in one annotated constant.

`toolchain/prune/criteria/NAME.py` -> `CRITERION`, `toolchain/prune/schedules/NAME.py` -> `SCHEDULE`,
`toolchain/train/learners/NAME.py` -> `LEARNER` (what that must offer is in `toolchain/train/lesson.py`),
`toolchain/train/forms/NAME.py` -> `FORM` (`toolchain/train/constraint.py`),
`toolchain/export/NAME.py` -> `FORMAT`, `toolchain/quantize/NAME.py` -> `QUANTIZER`,
`targets/NAME.py` (or `targets/NAME/__init__.py`) -> `TARGET`, `targets/_routes/NAME.py` -> `ROUTE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toolchain.placement import Placement
from toolchain.values import (
    Artifact,
    Channels,
    Conditions,
    Layer,
    Measurement,
    Precision,
    Preprocessing,
    Program,
    TensorSpec,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Batch = tuple[tuple[Tensor, ...], Tensor]
    Arrays = tuple[np.ndarray[Any, Any], ...]
    Weights = Mapping[str, np.ndarray[Any, Any]]


class Progress(Protocol):
    """Where a long stage tells how far it is. The command line draws it; tests ignore it."""

    def stage(self, title: str) -> None:
        """A new stage begins; the previous one is done."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of the current stage are finished."""


class Silent:
    """A progress that says nothing."""

    def stage(self, title: str) -> None:
        """Ignored."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """Ignored."""


class Data(Protocol):
    """Labelled samples. Batches are `(inputs, target)`: input tensors [n, ...] and a target [n]."""

    @property
    def name(self) -> str:
        """What the report calls the data."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number; empty where the target is no class."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images became inputs; None where samples are fed as they are."""

    @property
    def skipped(self) -> tuple[str, ...]:
        """Images that could not be read, relative to the data folder."""

    @property
    def train_size(self) -> int:
        """Number of training samples."""

    @property
    def validation_size(self) -> int:
        """Number of validation samples."""

    def fingerprint(self) -> str:
        """A hash that changes when the samples do."""

    def train(
        self, batch_size: int, *, seed: int, augment: bool, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """One epoch of the training part, shuffled by `seed`.

        `part` (number, of how many) gives a share of every batch, perhaps no sample of a small one; all
        shares together are the batch.
        """

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """The validation part, in a fixed order."""

    def calibration(self, count: int) -> Batch:
        """`count` training samples, fixed, spread over the classes, not augmented."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a criterion may look at: data when there are any, and a seed."""

    batches: tuple[Batch, ...] = ()
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """Scores units: `score(program, channels, evidence)[group][u]` is the damage of removing unit u alone.

    Scores are finite, >= 0 and comparable between groups. They do not change the program.
    `carry(program, channels, keep)` gives a copy, not cut yet, in which kept units do what the others did.
    """

    name: str
    summary: str
    needs_data: bool
    score: Callable[[Program, Channels, Evidence], Mapping[str, tuple[float, ...]]]
    carry: Callable[[Program, Channels, Mapping[str, tuple[int, ...]]], Program] | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When units go while the network is fine-tuned; how many go in all is the plan's decision.

    `removed(t)` is the share of all removals that is made by time t, the share of all training steps done:
    it never falls, and `removed(1) == 1`. A schedule whose `removed(0)` is 1 cuts before training.
    `rate(t)` is the learning rate as a share of its peak; None: as without a schedule.
    """

    name: str
    summary: str
    removed: Callable[[float], float]
    rate: Callable[[float], float] | None = None


class Session(Protocol):
    """An exported file opened for running."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Shape and type of every input, in their order; a None dimension takes any size."""

    def run(self, arrays: Arrays) -> Arrays:
        """Outputs for inputs of any batch size, in the order of the program's outputs."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format: how to write a program into it and how to run what was written.

    `extra` is the pip extra that brings `packages` (top-level import names). `read` gives back the metadata
    that `write` put in; of a file from elsewhere whatever is there. `open` is None where no engine for the
    format exists on this machine's platform; the reason is then `closed_because`.
    """

    name: str
    summary: str
    suffix: str
    extra: str
    write: Callable[[Program, Path, Mapping[str, str]], Artifact]
    read: Callable[[Path], Mapping[str, str]]
    open: Callable[[Path], Session] | None
    closed_because: str = ""
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """Post-training quantization of an exported file by the tools of its own runtime.

    `quantize(source, path, samples, in_float)` writes a new file; `samples` are calibration inputs [n, ...],
    None where `needs_data` is False; `in_float` are the layers that keep their precision: their weights as
    they were exported, by name. `runtime` executes the file.
    """

    name: str
    format: str
    runtime: str
    precision: Precision
    needs_data: bool
    quantize: Callable[[Artifact, Path, Sequence[Arrays] | None, Weights], Artifact]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """An engine that a target runs models with. `align` is the channel multiple its kernels like.

    `mixed` says whether single layers of an int8 file may stay in float, `probed` whether layers can be timed
    alone.
    """

    name: str
    format: str
    precisions: tuple[Precision, ...]
    align: int = 1
    mixed: bool = False
    probed: bool = True

    def runs(self, precision: Precision) -> bool:
        """Whether it executes files of this precision."""
        return precision in self.precisions or (precision == "mixed" and self.mixed)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to measure: `trials` fresh sessions per model, interleaved, each timed for `runs` runs.

    A trial ends early after `trial_seconds`. Many short trials tell more than few long ones: sessions of one
    file differ by more than the runs of one session. With `turns` above 1 the models of a trial are open at
    once and share their runs out in so many turns: what disturbs the machine for milliseconds then meets all.
    With `placement` the runtime is asked afterwards where the operators ran.
    """

    trials: int = 16
    runs: int = 60
    warmup: int = 20
    trial_seconds: float = 0.5
    turns: int = 1
    threads: int = 1
    placement: bool = False


class Device(Protocol):
    """A connected target."""

    def conditions(self, runtime: Runtime, threads: int) -> Conditions:
        """What the device is and the state it is in now."""

    def measure(
        self, artifacts: Sequence[Artifact], protocol: Sampling, progress: Progress
    ) -> tuple[Measurement, ...]:
        """Interleaved measurement of all `artifacts`; one result each, in their order."""

    def probe(
        self,
        runtime: Runtime,
        precision: Precision,
        layers: Sequence[Layer],
        *,
        threads: int,
        progress: Progress,
    ) -> tuple[float | None, ...]:
        """Kernel milliseconds of single layers at batch 1; None where a layer cannot be timed alone."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device class: what it is, what runs on it, and how to reach it.

    `calibration` is the data file of its latency models, for predictions without the device. `routes` are the
    ways by which `bench --device` measures files on one.
    """

    name: str
    summary: str
    runtimes: tuple[Runtime, ...]
    connect: Callable[[], Device]
    calibration: Path | None = None
    routes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file and the runtime that runs it. `precision` is None where nobody says which it is."""

    path: Path
    runtime: str
    sha256: str
    precision: Precision | None = None


@dataclass(frozen=True, kw_only=True)
class Tier:
    """How long a file is benched: `runs` runs and `seconds` at least, both, in `trials` fresh sessions.

    A session has `windows` records, one after the other without a break.
    """

    name: str
    runs: int
    seconds: float
    trials: int
    windows: int = 1


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How to bench. `cadence_hz` starts runs at a camera's rate; `max_celsius` waits for a cool device."""

    tier: Tier
    threads: int = 1
    cadence_hz: float | None = None
    max_celsius: float | None = None


@dataclass(frozen=True, kw_only=True)
class Benched:
    """What a route brought back: raw records of trials, and the device's state before and after.

    `records` are those of docs/runner.md; `versions` are the runtimes'. What could not be read is None. A
    device without a clock of its own gives no records: `instructions` of the runs of each file, and `parity`
    with this machine's outputs (None where nothing could be compared). `placements` are those of each file,
    None where the runtime does not tell.
    """

    device: str
    driver: str
    versions: Mapping[str, str | None]
    before: Mapping[str, Any]
    after: Mapping[str, Any] | None
    records: tuple[Mapping[str, Any], ...]
    instructions: tuple[tuple[int, ...], ...] | None = None
    parity: tuple[Mapping[str, Any] | None, ...] | None = None
    placements: tuple[Placement | None, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """How a file's outputs on a device compare with this machine's; `instructions` where they are counted.

    `parity` has `max_relative` (largest difference over largest value; None where outputs are no floats) and
    `equal_share`; it is None where there was nothing to compare with.
    """

    parity: Mapping[str, Any] | None
    instructions: tuple[int, ...] | None = None


class Connection(Protocol):
    """A device that a route reached."""

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        """What it runs files with."""

    def device(self) -> Device | None:
        """The device, to plan for; None where it has no clock: files are only checked on it."""

    def check(self, files: Sequence[ModelFile], progress: Progress) -> tuple[Checked, ...]:
        """Each file's outputs there and here on equal inputs; raises DeviceError where it does not run."""

    def bench(self, files: Sequence[ModelFile], settings: BenchSettings, progress: Progress) -> Benched:
        """Interleaved trials of all `files`; raises DeviceError when they are not complete."""


@dataclass(frozen=True, kw_only=True)
class Reachable:
    """A device that is there, or could be: `missing` says what is not there yet and `hint` how to get it."""

    device: str
    summary: str
    missing: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that a route needs here: what was `found` of it ("": it is missing) and how to get it."""

    name: str
    found: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Route:
    """A way to a device. `--device NAME` or `NAME:REST` opens it with REST; `form` shows how to write it.

    Without a `clock` its devices only check files, whatever the target.
    """

    name: str
    form: str
    summary: str
    open: Callable[[str], Connection]
    found: Callable[[], Sequence[Reachable]]
    needs: Callable[[], Sequence[Need]]
    clock: bool = True
