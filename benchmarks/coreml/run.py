"""Core ML files interpreted beside the networks that they came from.

    python -m benchmarks.coreml.run [--only NAME ...] [--max-mb 400]
    python -m benchmarks.coreml.run --trained MODEL.pt2 --data FOLDER

The torchvision networks of the coverage benchmark, each in a process of its own that is forked when the
libraries are loaded: the smallest of every family first, then the next of each. An entry goes into
results.json as soon as its network ends, with the table beside it; what the file has is not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from benchmarks.coreml.one import network, trained
from benchmarks.coreml.table import markdown
from benchmarks.coverage import zoo
from benchmarks.coverage.oracle import cause
from benchmarks.coverage.run import BYTES_PER_WEIGHT, opened, replace, version
from toolchain.foreign import quiet

RESULTS = Path(__file__).parent / "results.json"
Found = dict[str, Any]
Keep = Callable[[Found], None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="names of networks")
    parser.add_argument("--trained", type=Path, help="a trained network instead, as a .pt2 file")
    parser.add_argument("--data", help="image folder for the trained network")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--no-fp16", action="store_true", help="float32 alone: a quarter of the time less")
    parser.add_argument("--again", action="store_true", help="measure also what the file has")
    parser.add_argument("--max-mb", type=float, default=400.0, help="largest fp32 weights to run")
    parser.add_argument("--limit-s", type=float, default=1200.0, help="longest time of one network")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    with quiet():
        import coremltools  # noqa: F401 (once, before the forks)
    if flags.trained is not None:
        keep_entry(
            flags.out,
            "trained",
            flags.trained.stem,
            child(partial(trained, flags.trained, flags.data), flags.limit_s),
        )
        return 0
    params = {name: zoo.parameter_count(name) for name in zoo.names("torchvision")}
    done = opened(flags.out, "torchvision")["networks"]
    for name in flags.only or in_turns(sorted(params, key=lambda n: params[n])):
        megabytes = params[name] * BYTES_PER_WEIGHT / 1e6
        if megabytes > flags.max_mb or (name in done and not flags.again):
            continue
        found = {
            "params": params[name],
            **child(partial(network, name, fp16=not flags.no_fp16), flags.limit_s),
        }
        keep_entry(flags.out, "networks", name, found)
        print(f"{name}: {found['status']} in {found['seconds']:.0f} s {found.get('reason', '')}", flush=True)
    return 0


def in_turns(names: Sequence[str]) -> list[str]:
    """The first of each family, then the second of each; a family is the letters that a name begins with."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(re.match("[a-z]+", name)[0], []).append(name)  # type: ignore[index]
    return [name for turn in zip_longest(*families.values()) for name in turn if name is not None]


def keep_entry(path: Path, room: str, name: str, found: dict[str, Any]) -> None:
    """Add an entry to the results as the file has them now."""
    record = opened(path, "torchvision")
    record["environment"] |= {"coremltools": version("coremltools")}
    record["of"] = len(zoo.names("torchvision"))
    record.setdefault(room, {})[name] = found
    replace(path, json.dumps(record, indent=1) + "\n")
    replace(path.with_suffix(".md"), markdown(record))


def child(work: Callable[[Keep], Found], limit_s: float) -> Found:
    """What a process of its own found, and where it stopped if it did not finish."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        process = multiprocessing.get_context("fork").Process(target=recorded, args=(work, out))
        process.start()
        process.join(limit_s)
        failure = f"ended with status {process.exitcode}"
        if process.is_alive():
            process.kill()
            process.join()
            failure = f"not finished within {limit_s:.0f} s"
        found: Found = json.loads(out.read_text()) if out.exists() else {"status": "unfinished"}
    step = found.pop("step", "capture")
    if found["status"] != "finished":
        found["reason"] = f"{found.get('reason', failure)} (at {step})"
    return {**found, "seconds": time.perf_counter() - start}


def recorded(work: Callable[[Keep], Found], out: Path) -> None:
    """Do the work; what is found so far is in `out` at every moment."""
    so_far: Found = {"status": "unfinished"}

    def keep(found: Found) -> None:
        so_far.update(found)
        replace(out, json.dumps(found))

    try:
        keep(work(keep))
    except Exception as error:  # noqa: BLE001 (whatever happens to a network is a result)
        keep({**so_far, "reason": cause(error)})


if __name__ == "__main__":
    sys.exit(main())
