"""Plans as JSON files: saved, reviewed, diffed and replayed."""

from __future__ import annotations

import json
from pathlib import Path

from toolchain.errors import InputError
from toolchain.plain import from_plain, to_plain
from toolchain.values import Channels, PrunePlan

SCHEMA = "edgefit.plan/1"


def plan_text(plan: PrunePlan) -> str:
    """The plan as indented JSON with sorted keys, one line a group."""
    record = to_plain(plan)
    keep = record.pop("keep")
    lines = [f"    {json.dumps(name)}: {json.dumps(units)}" for name, units in sorted(keep.items())]
    head = json.dumps({"schema": SCHEMA, **record}, indent=2, sort_keys=True)[:-2]
    body = "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"
    return f'{head},\n  "keep": {body}\n}}\n'


def read_plan(path: Path) -> PrunePlan:
    """The plan stored at `path`.

    Raises:
        InputError: missing, unreadable, not JSON, of another schema or malformed.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read plan {path}: {error.strerror}", hint="check the path") from error
    except ValueError as error:
        raise InputError(f"plan {path} is not JSON: {error}", hint="make one with `edgefit plan`") from error
    schema = record.pop("schema", None) if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise InputError(f"plan {path} has schema {schema!r}, expected {SCHEMA!r}", hint="make it anew")
    try:
        return from_plain(PrunePlan, record)
    except ValueError as error:
        raise InputError(f"plan {path} is malformed: {error}", hint="make it anew") from error


def check_plan(plan: PrunePlan, program: str, channels: Channels) -> None:
    """Refuse a plan that was made for another network.

    Raises:
        InputError: the fingerprint differs, or a group or unit does not exist.
    """
    if plan.program != program:
        raise InputError(
            f"the plan was made for network {plan.program[:12]}, this one is {program[:12]}",
            hint="plans are bound to the exact weights; make a new one with `edgefit plan`",
        )
    sizes = {group.name: (group.size, group.minimum) for group in channels.groups}
    for name, units in plan.keep.items():
        if name not in sizes:
            raise InputError(f"the plan names group '{name}', which this network does not have")
        size, minimum = sizes[name]
        if len(units) < minimum or list(units) != sorted(set(units)) or units[0] < 0 or units[-1] >= size:
            raise InputError(f"the plan's units of group '{name}' are not distinct, ascending and in range")
