"""A device behind a shell: benched, checked, and measured and probed as a `Device` to plan for."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from targets._shared import tensorrt
from targets._shared.benching import job_of
from targets._shared.parity import OUTPUTS, outputs_here, parity, parity_job
from targets._shared.placement import placements
from targets._shared.probing import of_profile, of_turns
from targets._shared.remote import POLL_SECONDS, Answer, Station, reach
from targets._shared.runner import Job, Model, version
from targets._shared.sampling import job_for, measurement
from targets._shared.settings import TEGRASTATS, Settings
from targets._shared.shell import Shell
from targets._shared.tegra import watched
from targets._shared.timing import RUNS, SECONDS, SESSIONS, Group, probe_layers
from toolchain.contracts import Benched, BenchSettings, Checked, ModelFile, Progress, Runtime, Sampling
from toolchain.errors import DeviceError
from toolchain.values import Artifact, Conditions, Layer, Measurement, Precision

SPARE_SECONDS, SLOW_SECONDS = 300.0, 10.0
"""What a measurement may take at most besides its runs, and for each run that is asked for."""
PATIENCE_SECONDS: Final = 120.0
"""How long a link that was lost is made again."""
PROFILE: Final = "profile"
LEAST_ROUNDS: Final = 8


def bench(
    station: Station, files: Sequence[ModelFile], settings: BenchSettings, progress: Progress
) -> Benched:
    """Bench `files` on the device.

    Raises:
        DeviceError: something is missing there, or the measurement is not complete.
    """
    paths = []
    for number, file in enumerate(files):
        progress.step(number, len(files), f"sending {file.path.name}")
        paths.append(station.send(file.path, known=file.sha256))
    if any(file.runtime == tensorrt.RUNTIME.name for file in files):
        return _by_trtexec(station, files, paths, settings)
    libraries = tuple(station.library(runtime) for runtime in sorted({f.runtime for f in files}))
    job, tier = job_of(files, settings, paths, hashed=True), settings.tier
    slow = 4 * (tier.seconds + job.trials * job.warmup_seconds) + SLOW_SECONDS * tier.runs
    deadline = slow * len(files) + job.cool_seconds + SPARE_SECONDS
    job = replace(job, libraries=libraries, deadline=deadline)
    answer = station.run(job, every_seconds=max(POLL_SECONDS, tier.seconds / 20), files=TEGRASTATS)
    begin, *trials, end = answer.records
    power = {"tegrastats": watched(answer.files[TEGRASTATS])} if answer.files.get(TEGRASTATS) else {}
    return Benched(
        device=station.shell.name,
        driver=f"runner {version()}",
        versions=begin["libraries"],
        before=begin["conditions"],
        after=end["conditions"] | power,
        records=tuple(record for record in trials if record["type"] == "trial"),
        placements=placements(trials, [file.path for file in files]),
    )


def _by_trtexec(
    station: Station, files: Sequence[ModelFile], paths: Sequence[str], settings: BenchSettings
) -> Benched:
    """`bench` of files that TensorRT runs; the runner only tells the device's state.

    Raises:
        DeviceError: files of other runtimes are among them, or what trtexec cannot do is asked for.
    """
    if any(file.runtime != tensorrt.RUNTIME.name for file in files):
        raise DeviceError(
            "TensorRT is measured alone, not in turns with other runtimes", hint="add --runtime tensorrt"
        )
    if settings.cadence_hz or settings.max_celsius:
        raise DeviceError("trtexec has no cadence and no thermal gate", hint="leave out both flags")
    trtexec, tier = tensorrt.trtexec_of(station.shell), settings.tier
    assert trtexec is not None
    text = tensorrt.script(
        trtexec,
        list(zip(files, paths, strict=True)),
        [tensorrt.dynamic_inputs(file.path) for file in files],
        tier,
        folder=station.place.folder,
        runner=station.program,
    )
    command = "sh -c '. ./job' edgefit-trtexec"
    answer = station.carry(text, command, every_seconds=max(POLL_SECONDS, tier.seconds / 20), files="t")
    begin, end = answer.records
    power = {"tegrastats": watched(answer.files[TEGRASTATS])} if answer.files.get(TEGRASTATS) else {}
    return Benched(
        device=station.shell.name,
        driver="trtexec, fp16 allowed",
        versions={tensorrt.RUNTIME.name: tensorrt.version_in(answer.files)},
        before=begin["conditions"],
        after=end["conditions"] | power,
        records=tensorrt.records(answer.files, tier.trials * tier.windows, len(files)),
    )


def check(station: Station, files: Sequence[ModelFile], progress: Progress) -> tuple[Checked, ...]:
    """How the outputs of each file there compare with those of this machine.

    Raises:
        DeviceError: a file does not run there.
    """
    found = []
    for number, file in enumerate(files):
        job = parity_job(file, station.send(file.path, known=file.sha256), OUTPUTS)
        job = replace(job, libraries=(station.library(file.runtime),), deadline=SPARE_SECONDS)
        there = station.run(job, files=OUTPUTS).files[OUTPUTS]
        found.append(Checked(parity=parity(there, outputs_here(file))))
        progress.step(number + 1, len(files), file.path.name)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Distant:
    """A device behind a shell, as `targets.host.Host` is this machine. `ready` comes before it measures."""

    station: Station
    ready: Callable[[], object] = field(default=lambda: None)

    def conditions(self, runtime: Runtime, threads: int) -> Conditions:
        """What the device is and the state it is in now."""
        return self._conditions(self.station.conditions(), runtime.name, threads)

    def measure(
        self, artifacts: Sequence[Artifact], protocol: Sampling, progress: Progress
    ) -> tuple[Measurement, ...]:
        """Interleaved measurement of all `artifacts` in one process on the device.

        Raises:
            DeviceError: something is missing there, or the measurement is not complete.
        """
        if not artifacts:
            return ()
        paths = [self.station.send(a.path, known=a.sha256) for a in artifacts]
        job = job_for(artifacts, paths, protocol)
        models = tuple(replace(m, sha256=a.sha256) for m, a in zip(job.models, artifacts, strict=True))
        answer = self._run(replace(job, models=models))
        begin = answer.records[0]["conditions"]
        progress.step(len(artifacts), len(artifacts), self.station.shell.name)
        return tuple(
            measurement(a, index, answer.records, self._conditions(begin, a.runtime, protocol.threads))
            for index, a in enumerate(artifacts)
        )

    def probe(
        self,
        runtime: Runtime,
        precision: Precision,
        layers: Sequence[Layer],
        *,
        threads: int,
        progress: Progress,
    ) -> tuple[float | None, ...]:
        """Kernel milliseconds of single layers at batch 1, in the order of `layers`; None: not possible.

        Raises:
            DeviceError: something is missing there, or the timing is not complete.
        """

        def ask(name: str, groups: Sequence[Group], progress: Progress) -> list[list[list[float]]]:
            found = []
            for number, (paths, count) in enumerate(groups):
                found.append(self._sessions(name, paths, count, threads))
                progress.step(number + 1, len(groups), f"{name} layers on {self.station.shell.name}")
            return found

        return probe_layers(runtime.name, precision, layers, ask=ask, progress=progress)

    def _sessions(self, runtime: str, paths: Sequence[Path], count: int, threads: int) -> list[list[float]]:
        """Nanoseconds of the layers in `paths` in every session, one after the other."""
        sent = [self.station.send(path) for path in paths]
        try:
            return self._timed(runtime, sent, count, threads)
        finally:
            self.station.forget(sent)

    def _timed(self, runtime: str, paths: Sequence[str], count: int, threads: int) -> list[list[float]]:
        job = Job(
            models=tuple(Model(runtime=runtime, path=path) for path in paths),
            threads=threads,
            trials=SESSIONS,
            least=LEAST_ROUNDS,
            most=RUNS,
            seconds=SECONDS,
            warmup=0,
        )
        if runtime == "onnxruntime":
            left = self._run(replace(job, profile=PROFILE), files=PROFILE).files
            try:
                return [of_profile(left[name], count) for name in sorted(left)]
            except (ValueError, KeyError, IndexError) as error:
                name = self.station.shell.name
                raise DeviceError(f"the layer timings of {name} cannot be read") from error
        trials: dict[int, list[Sequence[int]]] = {}
        for record in self._run(replace(job, together=1)).records:
            if record["type"] == "trial":
                trials.setdefault(record["trial"], []).append(record["wall_ns"])
        return [of_turns(list(zip(*rounds, strict=True))) for rounds in trials.values()]

    def _run(self, job: Job, files: str = "") -> Answer:
        """The answer to `job`, which gets the libraries of its models and a deadline."""
        self.ready()
        libraries = tuple(self.station.library(name) for name in sorted({m.runtime for m in job.models}))
        runs = max(job.least, job.most) + job.warmup
        each = 4 * (job.seconds + job.warmup_seconds) + SLOW_SECONDS * min(runs, 2 * job.least)
        deadline = SPARE_SECONDS + job.trials * len(job.models) * each
        return self.station.run(replace(job, libraries=libraries, deadline=deadline), files=files)

    def _conditions(self, found: Mapping[str, Any], runtime: str, threads: int) -> Conditions:
        """The runner's record of the device's state, as `Conditions`."""
        temperatures, load = found["temperatures"], found["load"]
        return Conditions(
            device=self.station.shell.name,
            os=f"{found['os'] or 'Linux'}, kernel {found['kernel']}",
            cpu=found["cpu"] or found["soc"],
            governor=self.station.settings.said(found["governor"]),
            frequency_mhz=found["frequency_mhz"],
            load=None if load is None else tuple(load),
            threads=threads,
            runtime=runtime,
            runtime_version=self.station.version(runtime),
            max_mhz=self.station.settings.mhz or found["max_mhz"],
            boost=found["boost"],
            driver=f"runner {version()}",
            celsius=max(temperatures.values(), default=None) if temperatures else None,
        )


@dataclass(frozen=True, kw_only=True)
class Behind:
    """What a route that gives a shell reaches. A lost link is made again for `patience_seconds`."""

    shell: Shell
    runtimes: tuple[Runtime, ...]
    patience_seconds: float = field(default_factory=lambda: PATIENCE_SECONDS)
    settings: Settings = field(default_factory=Settings)

    def bench(self, files: Sequence[ModelFile], settings: BenchSettings, progress: Progress) -> Benched:
        """As `bench`, and the connection is closed."""
        with self._reached() as station:
            return bench(station, files, settings, progress)

    def check(self, files: Sequence[ModelFile], progress: Progress) -> tuple[Checked, ...]:
        """As `check`, and the connection is closed."""
        with self._reached() as station:
            return check(station, files, progress)

    def device(self) -> Distant:
        """The device, to plan for; its connection is closed when the process ends."""
        atexit.register(self.shell.close)
        return Distant(station=reach(self.shell, self.patience_seconds, self.settings))

    @contextmanager
    def _reached(self) -> Iterator[Station]:
        try:
            yield reach(self.shell, self.patience_seconds, self.settings)
        finally:
            self.shell.close()
