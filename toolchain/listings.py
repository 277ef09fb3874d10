"""`inspect`, `targets` and `doctor` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolchain.report import words
from toolchain.report.summary import table

Found = Mapping[str, Any]


def inspection_text(found: Found) -> str:
    """The network, its groups of channels, and what is frozen and why."""
    return "\n".join(_inspection(found)) + "\n"


def _inspection(found: Found) -> Iterator[str]:
    cost = found["cost"]
    yield f"{found['name']}  {found['fingerprint'][:16]}"
    for kind in ("inputs", "outputs"):
        for spec in found[kind]:
            shape = " x ".join("batch" if n is None else str(n) for n in spec["shape"])
            yield f"{kind[:-1]} {spec['name']}: {shape}, {spec['dtype']}"
    yield (
        f"{words.count(cost['macs'])} MACs, {words.count(cost['params'])} parameters,"
        f" {words.count(cost['neurons'])} neurons, {words.size(cost['weight_bytes'])} of weights"
    )
    groups = found["groups"]
    yield ""
    yield f"{len(groups)} groups of channels that can be removed one by one"
    rows = [("group", "channels", "cuts", "note")]
    for group in groups:
        members = [f"{m['parameter']}[{m['dim']}]" for m in group["members"]]
        more = f" and {len(members) - 3} more" if len(members) > 3 else ""
        rows.append((group["name"], str(group["size"]), ", ".join(members[:3]) + more, group["note"]))
    yield from table(rows) if groups else ()
    if found["blocks"]:
        yield ""
        yield f"residual blocks that can be left out whole: {', '.join(found['blocks'])}"
    if found["unknown"]:
        yield ""
        yield "operators without a rule, which keep the channels that reach them from being removed"
        yield from table([("operator", "calls"), *((name, str(n)) for name, n in found["unknown"].items())])
    yield ""
    yield f"{len(found['frozen'])} dimensions stay as they are"
    reasons = [(f"{f['parameter']}[{f['dim']}]", str(f["count"]), f["reason"]) for f in found["frozen"]]
    yield from table([("dimension", "channels", "why"), *reasons]) if reasons else ()
    if found["picture"]:
        yield ""
        yield f"picture: {found['picture']}"


def targets_text(found: Found) -> str:
    """Every target with its runtimes."""
    lines = []
    for target in found["targets"]:
        lines.append(f"{target['name']}: {target['summary']}")
        rows = [("  runtime", "runs", "precisions", "channels in multiples of", "")]
        for runtime in target["runtimes"]:
            precisions, align = ", ".join(runtime["precisions"]), str(runtime["align"])
            state = f"missing: {runtime['install']}" if runtime["install"] else "ready"
            rows.append((f"  {runtime['name']}", runtime["format"], precisions, align, state))
        lines += table(rows)
    return "\n".join(lines) + "\n"


def doctor_text(found: Found) -> str:
    """Packages, formats and targets, and what to install."""
    return "\n".join(_doctor(found)) + "\n"


def _doctor(found: Found) -> Iterator[str]:
    yield f"edgefit {found['edgefit']}, Python {found['python']}, {found['system']}, {found['cores']} cores"
    yield ""
    rows = [("package", "version", "")]
    for package in found["packages"]:
        needed = f"pip install 'edgefit[{package['extra']}]'" if package["extra"] else "pip install edgefit"
        rows.append((package["name"], package["version"] or "missing", "" if package["version"] else needed))
    yield from table(rows)
    yield ""
    rows = [("format", "state", "")]
    for form in found["formats"]:
        state = "missing" if form["missing"] else "writes and runs" if form["runs_here"] else "writes"
        rows.append((form["name"], state, form["install"] or form["because"]))
    yield from table(rows)
    yield ""
    yield from targets_text(found).rstrip("\n").split("\n")
