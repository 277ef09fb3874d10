"""Core ML files interpreted beside the networks that they came from.

    python -m benchmarks.coreml.run [--only NAME ...] [--max-mb 400]
    python -m benchmarks.coreml.run --trained MODEL.pt2 --data FOLDER

The torchvision networks of the coverage benchmark, each in a process of its own: the smallest of every
family first, then the next of each. An entry goes into results.json as soon as its network ends, with the
table beside it; networks that the file has are not run again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmarks.coreml.table import markdown
from benchmarks.coverage import zoo
from benchmarks.coverage.run import BYTES_PER_WEIGHT, opened, replace, version

RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="names of networks")
    parser.add_argument("--trained", type=Path, help="a trained network instead, as a .pt2 file")
    parser.add_argument("--data", help="image folder for the trained network")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="measure also what the file has")
    parser.add_argument("--max-mb", type=float, default=400.0, help="largest fp32 weights to run")
    parser.add_argument("--limit-s", type=float, default=1200.0, help="longest time of one network")
    flags = parser.parse_args()
    if flags.trained is not None:
        words = [str(flags.trained), "--trained", *(["--data", flags.data] if flags.data else [])]
        keep(flags.out, "trained", flags.trained.stem, child(words, flags.limit_s))
        return 0
    params = {name: zoo.parameter_count(name) for name in zoo.names("torchvision")}
    done = opened(flags.out, "torchvision")["networks"]
    for name in flags.only or in_turns(sorted(params, key=lambda n: params[n])):
        megabytes = params[name] * BYTES_PER_WEIGHT / 1e6
        if megabytes > flags.max_mb or (name in done and not flags.again):
            continue
        found = {"params": params[name], **child([name], flags.limit_s)}
        keep(flags.out, "networks", name, found)
        print(f"{name}: {found['status']} in {found['seconds']:.0f} s {found.get('reason', '')}", flush=True)
    return 0


def in_turns(names: Sequence[str]) -> list[str]:
    """The first of each family, then the second of each; a family is the letters that a name begins with."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(re.match("[a-z]+", name)[0], []).append(name)  # type: ignore[index]
    return [name for turn in zip_longest(*families.values()) for name in turn if name is not None]


def keep(path: Path, room: str, name: str, found: dict[str, Any]) -> None:
    """Add an entry to the results as the file has them now."""
    record = opened(path, "torchvision")
    record["environment"] |= {"coremltools": version("coremltools")}
    record["of"] = len(zoo.names("torchvision"))
    record.setdefault(room, {})[name] = found
    replace(path, json.dumps(record, indent=1) + "\n")
    replace(path.with_suffix(".md"), markdown(record))


def child(words: Sequence[str], limit_s: float) -> dict[str, Any]:
    """What the process of one network wrote, and where it stopped if it did not finish."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.coreml.one", words[0], str(out), *words[1:]]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
            failure = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1][:300]
        except subprocess.TimeoutExpired:
            failure = f"not finished within {limit_s:.0f} s"
        found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"status": "unfinished"}
    step = found.pop("step", "capture")
    if found["status"] != "finished":
        found["reason"] = f"{failure} (at {step})"
    return {**found, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    sys.exit(main())
