"""One network in a process of its own.

python -m benchmarks.coverage.one NAME RESULT.json           the checks of `oracle`, in float64
python -m benchmarks.coverage.one NAME RESULT.json --race S  times and memory beside torch-pruning's
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.coverage import zoo
from benchmarks.coverage.oracle import attempt, cause, checks
from benchmarks.coverage.race import race
from benchmarks.coverage.shares import share
from toolchain.errors import UnsupportedError
from toolchain.program.capture import capture
from toolchain.program.channels import examine
from toolchain.program.cost import cost

BATCH = 2
ORDER = ("failed", "differs", "equal")
"""The status of a network is the worst of its checks'."""


def measure(name: str) -> dict[str, Any]:
    """The checks, the prunable share with what is missing from it, and the size of the network."""
    start = time.process_time()
    module, shape = zoo.build(name, side_px=zoo.small_side_px(name))
    module = module.double()
    try:
        program = capture(module, (torch.randn(BATCH, *shape, dtype=torch.float64),), name=name)
    except Exception as error:  # noqa: BLE001 (a network that cannot be captured is an entry)
        return {"status": "failed", "reason": f"not captured: {cause(error)}"}
    found = attempt(lambda _: {"status": "equal", **described(program)}, 0)
    results = checks(program) if found["status"] == "equal" else {}
    worst = min((check["status"] for check in (found, *results.values())), key=ORDER.index)
    return {
        **found,
        "status": worst,
        "reason": found.get("reason") or why(results),
        "side_px": shape[-1],
        "dynamic_batch": program.inputs[0].shape[0] is None,
        "checks": results,
        "whole": whole(name),
        "cpu_s": time.process_time() - start,
    }


def whole(name: str) -> str | None:
    """How the detection model with its selection of boxes fares; None for other networks."""
    module = zoo.whole_detector(name)
    if module is None:
        return None
    try:
        capture(module, (torch.randn(BATCH, 3, zoo.SIDE_PX, zoo.SIDE_PX),), name=name)
    except UnsupportedError as error:
        return f"refused: {error}; {error.hint}"
    return "captured"


def described(program: Any) -> dict[str, Any]:
    """What the analysis found."""
    analysis = examine(program)
    whole = cost(program)
    return {
        **share(program, analysis),
        "groups": len(analysis.channels.groups),
        "noted": sum(bool(g.note) for g in analysis.channels.groups),
        "nodes": len(program.module.graph.nodes),
        "macs": whole.macs,
        "params": whole.params,
        "unknown_operators": dict(analysis.tracing.unknown),
    }


def why(found: dict[str, dict[str, Any]]) -> str:
    """What went wrong, check by check; empty where nothing did."""
    wrong = {name: check for name, check in found.items() if check["status"] != "equal"}
    texts = [f"{name}: {check.get('reason') or _differing(check)}" for name, check in wrong.items()]
    return "; ".join(texts)


def _differing(check: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in check.items() if key != "status")


def main() -> int:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    name, out = sys.argv[1:3]
    found = race(name, float(sys.argv[4])) if "--race" in sys.argv else measure(name)
    Path(out).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
