"""The main job on a real trained network: half, a quarter and a tenth of its own measured latency.

    python -m benchmarks.resnet20.run --model resnet20_cifar10.pt2 --data cifar10 [--only 0.5] [--out DIR]

Every case is one `compress` command line, run as a user would run it; a run is appended to results.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benchmarks.commands import edgefit

HERE = Path(__file__).parent
CASES = {"0.5": 1, "0.25": 3, "0.1": 3}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--out", type=Path, default=Path("build/resnet20"))
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    baseline = edgefit("bench", str(flags.model), "--data", str(flags.data), "--json")
    times = {
        f"{m['runtime']} {m['precision']}": m["p50_ms"]
        for m in json.loads(baseline.stdout)["baseline"]["measurements"]
    }
    best = min(ms for name, ms in times.items() if name.endswith("fp32"))
    print(f"baseline: {times}; best float {best:.4f} ms", flush=True)
    rows = []
    for ratio, epochs in CASES.items():
        if flags.only in (None, ratio):
            rows.append(case(flags, float(ratio), epochs, best))
            print(json.dumps(rows[-1], indent=1), flush=True)
    results = HERE / "results.json"
    runs = json.loads(results.read_text())["runs"] if results.exists() else []
    record = {"runs": [*runs, {"baseline_ms": times, "cases": rows}]}
    results.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def case(flags: argparse.Namespace, ratio: float, epochs: int, best: float) -> dict[str, object]:
    """One budget: the command, its exit code and what its report says."""
    out, budget = flags.out / f"x{ratio}", best * ratio
    start = time.monotonic()
    words = ["compress", str(flags.model), "--target", "host", "--data", str(flags.data)]
    words += ["--budget-ms", f"{budget:.4f}", "--epochs", str(epochs), "--out", str(out)]
    done = edgefit(*words)
    row: dict[str, object] = {
        "command": " ".join(["compress", "MODEL", *words[2:4], "--data", "DATA", *words[6:10]]),
        "ratio": ratio,
        "budget_ms": round(budget, 4),
        "exit_code": done.returncode,
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    if not (out / "report.json").exists():
        return row | {"message": done.stderr.strip().splitlines()[-2:]}
    report = json.loads((out / "report.json").read_text())
    limit = next(entry for entry in report["budget"] if entry["name"] == "ms")
    chosen = next(a for a in report["result"]["artifacts"] if a["chosen"])
    before, after = report["baseline"]["metric"]["value"], chosen["metric"]["value"]
    return row | {
        "verdict": report["verdict"],
        "chosen": f"{chosen['runtime']} {chosen['precision']}",
        "p50_ms": limit["value"],
        "interval_ms": [limit["low"], limit["high"]],
        "share_of_budget": limit["value"] / budget,
        "top1_before": before,
        "top1_after": after,
        "points_lost": before - after,
        "dropped": report["plan"]["dropped"],
        "params": report["result"]["cost"]["params"],
        "rounds": [[r["estimate_ms"], r["measured_ms"], r["decision"]] for r in report["rounds"]],
        "checks": [[c["name"], c["subject"], c["status"], c["value"]] for c in report["checks"]],
        "timings": report["timings"],
    }


if __name__ == "__main__":
    raise SystemExit(main())
