"""Does the budget hold? Three shares of the unpruned latency of four networks, on this machine.

    python -m benchmarks.held.run --resnet20 resnet20_cifar10.pt2 [--only NAME ...] [--out DIR]

`edgefit bench` gives the best latency of the network as it is, in float32; then one `edgefit compress` for
0.75, 0.5 and 0.25 of it, as a user would run it. torchvision's networks have random weights, which do not
matter for the time. results.json and results.md are replaced after every case; what they have stays.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.commands import edgefit
from benchmarks.coverage import foreign_zoo

HERE = Path(__file__).parent
NETWORKS = ("resnet20", "mobilenet_v2", "resnet18", "efficientnet_b0")
SHARES = (0.75, 0.5, 0.25)
LOWEST = 0.90
"""A case holds where the measured median is between this share of the budget and the budget."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resnet20", type=Path, required=True, help="the trained ResNet-20 (.pt2)")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--again", action="store_true", help="run also what the results hold")
    parser.add_argument("--out", type=Path, default=Path("build/held"))
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    results = HERE / "results.json"
    record: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    for name in flags.only:
        model = flags.resnet20 if name == "resnet20" else untrained(name, flags.out)
        if flags.again or name not in record:
            record[name] = {"bench": best(model), "cases": {}}
        for share in SHARES:
            if str(share) not in record[name]["cases"]:
                found = case(model, record[name]["bench"]["p50_ms"] * share, flags.out / f"{name}-{share}")
                record[name]["cases"][str(share)] = found
                print(f"{name} {share}: {json.dumps(found)}", flush=True)
                results.write_text(json.dumps(record, indent=1) + "\n")
                results.with_suffix(".md").write_text(markdown(record))
    return 0


def untrained(name: str, folder: Path) -> Path:
    """A torchvision network with random weights for 224 x 224 images, saved with a dynamic batch."""
    path = folder / f"{name}.pt2"
    if not path.exists():
        torch.manual_seed(0)
        module = foreign_zoo.torchvision().models.get_model(name, weights=None).eval()
        shapes = ({0: torch.export.Dim("batch", min=1, max=1024)},)
        exported = torch.export.export(module, (torch.randn(2, 3, 224, 224),), dynamic_shapes=shapes)
        torch.export.save(exported, path)
    return path


def best(model: Path) -> dict[str, Any]:
    """The fastest runtime for the network as it is, and the conditions."""
    ended = edgefit("bench", str(model), "--precision", "fp32", "--json")
    measurements = json.loads(ended.stdout)["baseline"]["measurements"]
    fastest: dict[str, Any] = min(measurements, key=lambda m: m["p50_ms"])
    return {key: fastest[key] for key in ("runtime", "p50_ms", "conditions")}


def case(model: Path, budget_ms: float, out: Path) -> dict[str, Any]:
    """One budget: exit code, what was measured, and how the closed loop went."""
    start = time.monotonic()
    words = ["compress", str(model), "--target", "host", "--precision", "fp32"]
    words += ["--budget-ms", f"{budget_ms:.5g}", "--epochs", "0", "--formats", "onnx,tflite"]
    ended = edgefit(*words, "--out", str(out))
    found: dict[str, Any] = {
        "budget_ms": budget_ms,
        "exit_code": ended.returncode,
        "minutes": (time.monotonic() - start) / 60,
    }
    if not (out / "report.json").exists():
        return found | {"message": ended.stderr.strip().splitlines()[-2:]}
    report = json.loads((out / "report.json").read_text())
    limit = next(entry for entry in report["budget"] if entry["name"] == "ms")
    chosen = next(a for a in report["result"]["artifacts"] if a["chosen"])
    return found | {
        "verdict": report["verdict"],
        "runtime": chosen["runtime"],
        "p50_ms": limit["value"],
        "interval_ms": [limit["low"], limit["high"]],
        "of_budget": limit["value"] / budget_ms,
        "rounds": [[r["estimate_ms"], r["measured_ms"]] for r in report["rounds"]],
        "failed_checks": [c["name"] for c in report["checks"] if c["status"] == "failed"],
        "timings": report["timings"],
    }


def markdown(record: Mapping[str, Any]) -> str:
    """One row a case under a summary."""
    cases = [(n, s, c) for n, r in record.items() for s, c in r["cases"].items()]
    within = [c for *_, c in cases if LOWEST <= c.get("of_budget", 0) <= 1]
    over = [c for *_, c in cases if c.get("of_budget", 0) > 1]
    lines = [
        "# Held budgets on the host CPU",
        "",
        f"{len(within)} of {len(cases)} cases within {LOWEST:.2f}-1.00 of the budget, {len(over)} over it.",
        "float32, one thread, batch 1; the budget is a share of the best unpruned latency.",
        "",
        "| network | share | budget ms | p50 ms | 95 % interval | of budget | verdict | rounds | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, share, found) for name, share, found in cases]
    return "\n".join(lines) + "\n"


def _row(name: str, share: str, c: Mapping[str, Any]) -> str:
    if "p50_ms" not in c:
        why = " ".join(c["message"])
        return f"| {name} | {share} | {c['budget_ms']:.4g} | not measured | | | {why} | | |"
    low, high = c["interval_ms"]
    return (
        f"| {name} | {share} | {c['budget_ms']:.4g} | {c['p50_ms']:.4g} | {low:.4g}-{high:.4g} | "
        f"{c['of_budget']:.3f} | {c['verdict']} | {len(c['rounds'])} | {c['minutes']:.1f} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
