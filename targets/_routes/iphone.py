"""An iPhone through `devicectl`, go-ios or pymobiledevice3, with the app of `targets/iphone/Runner` on it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from targets._shared.benching import job_of
from targets._shared.devicectl import DeviceCtl
from targets._shared.go_ios import GoIos
from targets._shared.parity import parity_job
from targets._shared.phone_runs import APP_VERSION, RUNNING, Handset
from targets._shared.phone_tools import BUNDLE, Seen, Tool, among, device
from targets._shared.placement import placements
from targets._shared.pymobile import PyMobile
from targets._shared.runner import Job
from targets._shared.sampling import job_for, measurement
from targets._shared.settings import UNITS, settings_of
from toolchain.contracts import (
    Benched,
    BenchSettings,
    Checked,
    ModelFile,
    Need,
    Progress,
    Reachable,
    Route,
    Runtime,
    Sampling,
)
from toolchain.errors import DeviceError
from toolchain.values import Artifact, Conditions, Layer, Measurement, Precision

RUNTIMES: Final = (
    Runtime(name="coreml", format="coreml", precisions=("fp16", "int8-weights"), align=8, probed=False),
)
LEAST_BATTERY: Final = 20.0
"""Percent under which phones begin to save power."""
COOL_SECONDS, SPARE_SECONDS, SLOW_SECONDS = 600.0, 600.0, 10.0
"""How long a hot phone is waited for; what compiling and a slow run may take."""
_UDID: Final = re.compile(r"[0-9A-Fa-f-]{24,40}")
_TOOLS: Final[tuple[tuple[str, Callable[[str], Tool]], ...]] = (
    ("xcrun", lambda program: DeviceCtl(program=program)),
    ("ios", lambda program: GoIos(program=program)),
    ("pymobiledevice3", lambda program: PyMobile(program=program)),
)


@dataclass(frozen=True, kw_only=True)
class Phone:
    """A phone that is there; a `Device` that measures Core ML packages, and times no single layers."""

    handset: Handset
    seen: Seen
    runtimes: tuple[Runtime, ...] = RUNTIMES

    def bench(self, files: Sequence[ModelFile], settings: BenchSettings, progress: Progress) -> Benched:
        """Interleaved trials of all `files` by the app.

        Raises:
            DeviceError: the phone refuses, or the measurement is not complete.
        """
        if settings.max_celsius:
            raise DeviceError(
                "an iPhone tells no temperature", hint="a hot one is waited for without --max-celsius"
            )
        tier = settings.tier
        job = job_of(files, settings, [file.path.name for file in files])
        slow = 4 * (tier.seconds + job.trials * job.warmup_seconds) + SLOW_SECONDS * tier.runs
        progress.step(0, 1, f"{self.handset.name}: do not leave the app")
        records = self._run(replace(job, deadline=slow * len(files)), [file.path for file in files])
        begin, end = records[0], records[-1]
        return Benched(
            device=self.handset.name,
            driver=f"iPhone runner {APP_VERSION}, {self.handset.tool.name}",
            versions=begin["libraries"],
            before=begin["conditions"],
            after=end["conditions"],
            records=tuple(record for record in records if record["type"] == "trial"),
            placements=placements(records, [file.path for file in files]),
        )

    def check(self, files: Sequence[ModelFile], progress: Progress) -> tuple[Checked, ...]:
        """Whether each file runs there; nothing here computes what Apple's kernels do.

        Raises:
            DeviceError: a file does not run there.
        """
        for number, file in enumerate(files):
            self._run(replace(parity_job(file, file.path.name, ""), outputs=None), [file.path])
            progress.step(number + 1, len(files), file.path.name)
        return tuple(Checked(parity=None) for _ in files)

    def device(self) -> Phone:
        """The phone, to measure on."""
        return self

    def conditions(self, runtime: Runtime, threads: int) -> Conditions:
        """What the phone is; its state is only known while the app runs."""
        return self._conditions({"low_power_mode": False}, runtime.name, threads)

    def measure(
        self, artifacts: Sequence[Artifact], protocol: Sampling, progress: Progress
    ) -> tuple[Measurement, ...]:
        """Interleaved measurement of all `artifacts` by the app.

        Raises:
            DeviceError: the phone refuses, or the measurement is not complete.
        """
        if not artifacts:
            return ()
        job = job_for(artifacts, [artifact.path.name for artifact in artifacts], protocol)
        paths = [artifact.path for artifact in artifacts]
        each = 4 * (job.seconds + job.warmup_seconds) + SLOW_SECONDS * (job.least + job.warmup)
        records = self._run(replace(job, deadline=job.trials * len(paths) * each), paths)
        progress.step(len(paths), len(paths), self.handset.name)
        state = records[0]["conditions"]
        return tuple(
            measurement(artifact, index, records, self._conditions(state, artifact.runtime, protocol.threads))
            for index, artifact in enumerate(artifacts)
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
        """None for every layer: a layer alone would run elsewhere than within its network."""
        return tuple(None for _ in layers)

    def _run(self, job: Job, paths: Sequence[Path]) -> tuple[dict[str, Any], ...]:
        whole = replace(
            job,
            threads=1,
            turns=1,
            units=self.handset.settings.compute_units or UNITS[0],
            min_battery=LEAST_BATTERY,
            cool_seconds=COOL_SECONDS,
            deadline=job.deadline + COOL_SECONDS + SPARE_SECONDS,
            placement=1,
        )
        return self.handset.run(whole, paths)

    def _conditions(self, found: Mapping[str, Any], runtime: str, threads: int) -> Conditions:
        units = self.handset.settings.compute_units or UNITS[0]
        saving = ", low power mode" if found["low_power_mode"] else ""
        return Conditions(
            device=self.handset.name,
            os=f"iOS {self.seen.version}",
            cpu=self.seen.kind,
            governor=f"compute units {units}{saving}",
            frequency_mhz=None,
            load=None,
            threads=threads,
            runtime=runtime,
            runtime_version=f"iOS {self.seen.version}",
            driver=f"iPhone runner {APP_VERSION}",
        )


def _tool() -> Tool | None:
    """The first program on the path that reaches iPhones."""
    for name, make in _TOOLS:
        if (program := shutil.which(name)) is not None:
            return make(program)
    return None


def _open(rest: str) -> Phone:
    if rest and not _UDID.fullmatch(rest):
        raise DeviceError(
            f"unknown device {device(rest)!r}", hint="iphone:UDID, as `edgefit devices` shows it"
        )
    tool = _tool()
    if tool is None:
        raise DeviceError(
            "there is no program that reaches iPhones",
            hint="Xcode's devicectl on a Mac; go-ios (`ios`) or pymobiledevice3 on Linux",
        )
    phones = tool.phones()
    if not rest:
        there = [phone for phone in phones if not phone.missing]
        if len(there) != 1:
            known = ", ".join(device(phone.udid) for phone in phones)
            raise DeviceError(
                f"{tool.name} reaches {len(there)} iPhones",
                hint=f"name one of {known}" if known else "plug one in, unlock it, and tap Trust",
            )
        rest = there[0].udid
    seen = among(phones, rest)
    if seen.missing:
        raise DeviceError(f"{device(rest)} needs {seen.missing}", hint=seen.hint)
    return Phone(
        handset=Handset(tool=tool, udid=seen.udid, settings=settings_of(device(seen.udid))), seen=seen
    )


def _found() -> tuple[Reachable, ...]:
    tool = _tool()
    try:
        phones = () if tool is None else tool.phones()
    except DeviceError:
        return ()
    return tuple(
        Reachable(device=device(phone.udid), summary=phone.summary, missing=phone.missing, hint=phone.hint)
        for phone in phones
    )


def _needs() -> tuple[Need, ...]:
    tool = _tool()
    return (
        Need(
            name="devicectl, go-ios or pymobiledevice3",
            found="" if tool is None else tool.name,
            hint="Xcode 15 on a Mac; github.com/danielpaulus/go-ios, or pip install pymobiledevice3",
        ),
        Need(
            name="the runner app on a phone",
            found="" if tool is None else _app_on(tool),
            hint="built on a Mac (targets/iphone/Runner/README.md), and named by `app` in devices.toml",
        ),
    )


def _app_on(tool: Tool) -> str:
    """The first phone that has the runner."""
    try:
        for phone in tool.phones():
            bundle = settings_of(device(phone.udid)).bundle or BUNDLE
            if not phone.missing:
                tool.pull(phone.udid, bundle, RUNNING)
                return device(phone.udid)
    except DeviceError:
        return ""
    return ""


ROUTE: Final = Route(
    name="iphone",
    form="iphone:UDID",
    summary="an iPhone with the runner app, over USB or network",
    open=_open,
    found=_found,
    needs=_needs,
)
