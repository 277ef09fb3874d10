"""The device that `--device` names, reached over its route, and the target that is planned for with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from toolchain import registry
from toolchain.contracts import Checked, Connection, Device, ModelFile, Progress, Route, Target
from toolchain.errors import InputError
from toolchain.values import Artifact, Check, Precision
from toolchain.verify.tolerance import DEVICE_INT8_RELATIVE, FLOAT_RELATIVE

HERE: Final = "host"
_FLOATS: Final[tuple[Precision, ...]] = ("fp32", "fp16")


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A target at a device that is there. `device` is None where that has no clock: it only checks files."""

    target: Target
    device: Device | None
    connection: Connection
    name: str


def connect(device: str) -> Connection:
    """The device that `--device` names: `NAME`, or `NAME:REST` with what the route wants to know.

    Raises:
        InputError: no such route; the hint names those there are.
        DeviceError: the device cannot be reached.
    """
    route, rest = _route(device)
    return route.open(rest)


def reached(target: Target, device: str, *, probed: bool = True) -> Reached:
    """The target as `device` can run it: with the runtimes that both know, measured there.

    `probed`: with those alone whose layers can be timed there, as planning needs.

    Raises:
        InputError: no such route, or the target is not reached by it, or has no runtime in common with it.
        DeviceError: the device cannot be reached.
    """
    route, _ = _route(device)
    if target.name != HERE and route.clock and route.name not in target.routes:
        known = ", ".join(_route(name)[0].form for name in target.routes) or "none yet"
        raise InputError(
            f"target '{target.name}' is not reached by {route.name}", hint=f"ways to one: {known}"
        )
    connection = connect(device)
    found = connection.device()
    if found is None:
        return Reached(target=target, device=None, connection=connection, name=device)
    theirs = {runtime.name: runtime for runtime in connection.runtimes}
    if probed:
        theirs = {name: runtime for name, runtime in theirs.items() if runtime.probed}
        if not theirs:
            raise InputError(
                f"layers cannot be timed alone on {device}, and a plan needs that",
                hint="edgefit bench and gate measure whole files there; without --device it is predicted",
            )
    common = tuple(theirs[r.name] for r in target.runtimes if r.name in theirs)
    if not common and target.name == HERE and not probed:
        common = tuple(theirs.values())
    if not common:
        what = "layers can be timed on" if probed else "files are measured on"
        raise InputError(
            f"{what} {device} in {', '.join(theirs)}, target '{target.name}' is for "
            f"{', '.join(r.name for r in target.runtimes)}",
            hint="leave out --target to plan for what the device runs",
        )
    name = device if target.name == HERE else f"{target.name} at {device}"
    there = replace(target, name=name, summary=route.summary, runtimes=common, calibration=None)
    return Reached(target=there, device=found, connection=connection, name=device)


def checks_there(reached: Reached, artifacts: Sequence[Artifact], progress: Progress) -> tuple[Check, ...]:
    """Whether the files that the device runs give the same outputs there as here.

    Raises:
        DeviceError: a file does not run there.
    """
    theirs = {runtime.name for runtime in reached.connection.runtimes}
    mine = [artifact for artifact in artifacts if artifact.runtime in theirs]
    files = [ModelFile(path=a.path, runtime=a.runtime, sha256=a.sha256, precision=a.precision) for a in mine]
    found = reached.connection.check(files, progress) if files else ()
    return tuple(_check(a, one, reached.name) for a, one in zip(mine, found, strict=True))


def _check(artifact: Artifact, found: Checked, device: str) -> Check:
    limit = FLOAT_RELATIVE if artifact.precision in _FLOATS else DEVICE_INT8_RELATIVE
    name, subject = f"outputs on {device}", artifact.path.name
    if found.parity is None:
        detail = "it ran, but this machine has no runner to compare with"
        return Check(name=name, subject=subject, status="not run", detail=detail)
    value, equal = found.parity["max_relative"], found.parity["equal_share"]
    counted = ""
    if found.instructions is not None:
        counted = f"; {min(found.instructions):,} instructions an inference"
    return Check(
        name=name,
        subject=subject,
        status="pass" if (equal == 1.0 if value is None else value <= limit) else "fail",
        value=value,
        limit=limit,
        unit="relative error",
        detail=f"one random input, {100 * equal:.1f} % of the outputs equal{counted}",
    )


def _route(device: str) -> tuple[Route, str]:
    name, _, rest = device.partition(":")
    route: Route = registry.find("targets._routes", "ROUTE", name, kind="device")
    return route, rest
