"""Every network of a family exported to every format, beside the bare exporters.

    python -m benchmarks.coverage.exports_run --family torchvision [--only NAME ...] [--shard 0/2]

Each network runs in a process of its own, the smallest first. Its entry goes into the results file as soon as
it ends, under a lock, so that runners of different shards share one file; networks that the file has are not
run again. A markdown table is written beside it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.coverage import zoo
from benchmarks.coverage.exports_table import markdown
from benchmarks.coverage.run import BYTES_PER_WEIGHT, HERE, opened, replace, version

_PACKAGES = ("onnx", "onnxscript", "onnxruntime", "coremltools", "litert-torch", "ai-edge-litert")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=zoo.FAMILIES, default="torchvision")
    parser.add_argument("--only", nargs="+", default=[], help="names of networks")
    parser.add_argument(
        "--out", type=Path, help="exports.json beside this file; exports-FAMILY.json for another family"
    )
    parser.add_argument("--again", action="store_true", help="measure also what the file has")
    parser.add_argument("--max-mb", type=float, default=float("inf"), help="largest fp32 weights to run")
    parser.add_argument(
        "--bare-max-mb", type=float, default=float("inf"), help="largest weights to compare exporters on"
    )
    parser.add_argument("--limit-s", type=float, default=1200.0, help="longest time of one network")
    parser.add_argument("--shard", default="0/1", help="K/N: every N-th network, from the K-th on")
    flags = parser.parse_args()
    names = zoo.names(flags.family)
    unknown = sorted(set(flags.only) - set(names))
    if unknown:
        parser.error(f"no network of {flags.family} is called {', '.join(unknown)}")
    own = "exports.json" if flags.family == "torchvision" else f"exports-{flags.family}.json"
    out = flags.out or HERE / own
    params = {name: zoo.parameter_count(name) for name in names}
    with record_of(out, flags.family) as record:
        for name in names:
            record["networks"].setdefault(name, {"status": "not run", "reason": "not yet"})
        done = {n for n, r in record["networks"].items() if r["status"] != "not run"}
    shard, shards = (int(part) for part in flags.shard.split("/"))
    for name in sorted(flags.only or names, key=lambda n: params[n])[shard::shards]:
        if name in done and not flags.again:
            continue
        megabytes = params[name] * BYTES_PER_WEIGHT / 1e6
        if megabytes > flags.max_mb:
            reason = f"{megabytes:.0f} MB of weights, too many here"
            found: dict[str, Any] = {"status": "not run", "reason": reason}
        else:
            bare = () if megabytes <= flags.bare_max_mb else ("--no-bare",)
            found = {"params": params[name], **child(name, flags.limit_s, *bare)}
            said = f"{name}: {found['status']} in {found['seconds']:.0f} s {found.get('reason', '')}"
            print(said, flush=True)
        with record_of(out, flags.family) as record:
            record["networks"][name] = found
    return 0


@contextmanager
def record_of(path: Path, family: str) -> Iterator[dict[str, Any]]:
    """The results as the file has them now, locked; what is changed inside is saved, with the table."""
    lock = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = opened(path, family)
        record["environment"] |= {package: version(package) for package in _PACKAGES}
        yield record
        replace(path, json.dumps(record, indent=1) + "\n")
        replace(path.with_suffix(".md"), markdown(record))
    finally:
        os.close(lock)


def child(name: str, limit_s: float, *words: str) -> dict[str, Any]:
    """What the process of one network wrote, and where it stopped if it did not finish."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.coverage.exports", name, str(out), *words]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
            last = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1][:300]
            failure = last if ended.returncode > 0 else f"killed by signal {-ended.returncode}"
        except subprocess.TimeoutExpired:
            failure = f"not finished within {limit_s:.0f} s"
        found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"status": "unfinished"}
    found["seconds"] = time.perf_counter() - start
    if found["status"] != "finished":
        found["reason"] = f"{failure} (at {found.pop('step', 'capture')})"
    return found


if __name__ == "__main__":
    sys.exit(main())
