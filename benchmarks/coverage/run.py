"""Every network of a family against its oracle, and its times beside torch-pruning's.

    python -m benchmarks.coverage.run --family torchvision [--only NAME ...] [--out results.json]

Two processes a network, one after the other: the checks in float64, then the times in float32. The smallest
networks come first. The results file is replaced after each network, so that the run can be stopped and
resumed; a markdown table is written beside it. What one run left out (--no-race), a later one measures, best
on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.coverage import zoo
from benchmarks.coverage.table import markdown

HERE = Path(__file__).parent
BYTES_PER_WEIGHT = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=zoo.FAMILIES, default="torchvision")
    parser.add_argument("--only", nargs="+", default=[], help="names of networks")
    parser.add_argument(
        "--out", type=Path, help="results.json beside this file; FAMILY.json for another family"
    )
    parser.add_argument("--again", action="store_true", help="measure also what the file has")
    parser.add_argument("--no-race", action="store_true", help="the checks alone, no times")
    parser.add_argument("--max-mb", type=float, default=float("inf"), help="largest fp32 weights to run")
    parser.add_argument("--limit-s", type=float, default=600.0, help="longest time of one network")
    parser.add_argument("--rival-limit-s", type=float, default=60.0, help="the same for torch-pruning")
    flags = parser.parse_args()
    names = zoo.names(flags.family)
    unknown = sorted(set(flags.only) - set(names))
    if unknown:
        parser.error(f"no network of {flags.family} is called {', '.join(unknown)}")
    out = flags.out or HERE / ("results.json" if flags.family == "torchvision" else f"{flags.family}.json")
    record = opened(out, flags.family)
    networks: dict[str, Any] = record["networks"]
    params = {name: zoo.parameter_count(name) for name in names}
    for name in names:
        networks.setdefault(name, {"status": "not run", "reason": "not yet"})
    for name in sorted(names, key=lambda n: params[n]):
        if not flags.only or name in flags.only:
            networks[name] = entry(name, params[name], networks[name], flags)
            save(out, record)
    save(out, record)
    return int(any(n["status"] not in ("equal", "not run") for n in networks.values()))


def entry(name: str, params: int, known: dict[str, Any], flags: argparse.Namespace) -> dict[str, Any]:
    """What is known of a network, and what had to be measured for it."""
    megabytes = params * BYTES_PER_WEIGHT / 1e6
    if megabytes > flags.max_mb:
        reason = f"{megabytes:.0f} MB of weights, too many here"
        return {"status": "not run", "reason": reason} if known["status"] == "not run" else known
    if known["status"] == "not run" or flags.again:
        known = {"params": params, "commit": commit(), **child(name, flags.limit_s)}
        print(said(name, known), flush=True)
    if "race" not in known and not flags.no_race:
        limit_s = flags.limit_s + flags.rival_limit_s
        known["race"] = child(name, limit_s, "--race", str(flags.rival_limit_s))
    return known


def commit() -> str:
    """The short name of the commit whose toolchain runs, with a plus sign where files differ from it."""
    git = ["git", "-C", str(HERE)]
    named = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/toolchain"], check=False).returncode
    return (named.stdout.strip() or "unknown") + "+" * bool(changed)


def said(name: str, found: dict[str, Any]) -> str:
    """One line while the run goes on."""
    return f"{name}: {found['status']} in {found.get('cpu_s', 0):.0f} s of CPU time {found.get('reason', '')}"


def opened(path: Path, family: str) -> dict[str, Any]:
    """The results of before, or empty ones, with this machine's description."""
    record = json.loads(path.read_text()) if path.exists() else {"networks": {}}
    assert isinstance(record, dict)
    packages = ("torch", "torchvision", "timm", "torch-pruning")
    record["family"] = family
    record["environment"] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
    return record


def version(package: str) -> str:
    """The installed version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def child(name: str, limit_s: float, *flags: str) -> dict[str, Any]:
    """What the process of one network wrote, or how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.coverage.one", name, str(out), *flags]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return {"status": "no result", "reason": f"none within {limit_s:.0f} s"}
        if ended.returncode == 0 and out.exists():
            found: dict[str, Any] = json.loads(out.read_text())
            return found
        last = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
        return {"status": "failed", "reason": last[:300]}


def save(path: Path, record: dict[str, Any]) -> None:
    """Replace the results file and the table beside it."""
    replace(path, json.dumps(record, indent=1) + "\n")
    replace(path.with_suffix(".md"), markdown(record))


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
