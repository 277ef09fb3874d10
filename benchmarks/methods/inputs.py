"""Which of its input does a network need? A fully connected one on digits, weights alone and with the input.

    python -m benchmarks.methods.inputs

64-128-64-10 on scikit-learn's digits (8 x 8 pixels), under the same budget of parameters: `bar`, which prunes
channels alone, and `data` at several prices of the input. inputs.json, inputs.md and the pictures
inputs-PRICE.svg are replaced after every run; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.commands import edgefit
from benchmarks.digits.network import VALIDATION, digits
from toolchain.program.capture import capture, save_program

HERE = Path(__file__).parent
RESULTS = HERE / "inputs.json"
BUDGET: Final = 9000
PRICES: Final = (1.0, 4.0, 16.0)
FIXED = (
    "--formats",
    "onnx",
    "--runtime",
    "onnxruntime",
    "--precision",
    "fp32",
    "--batch-size",
    "64",
    "--quiet",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="in which the method learns")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/inputs"))
    flags = parser.parse_args()
    model, data = prepare(flags.out)
    runs: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {(run["price"], run["seed"], run["epochs"]) for run in runs}
    for seed in range(flags.seeds):
        for price in (None, *PRICES):
            if (price, seed, flags.epochs) not in done:
                runs.append(one(flags.out, model, data, flags.epochs, price, seed))
                print(json.dumps(runs[-1]), flush=True)
                RESULTS.write_text(json.dumps(runs, indent=1) + "\n")
                RESULTS.with_suffix(".md").write_text(markdown(runs))
    return 0


def prepare(folder: Path) -> tuple[Path, Path]:
    """The trained network and its data."""
    model, data = folder / "mlp.pt2", folder / "digits.npz"
    if model.exists() and data.exists():
        return model, data
    folder.mkdir(parents=True, exist_ok=True)
    x, y = digits()
    cut = len(x) - VALIDATION
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(40):
        for chosen in torch.randperm(cut).split(64):
            optimizer.zero_grad()
            cross_entropy(network(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
    save_program(capture(network.eval(), (inputs[:2],), name="mlp"), model)
    np.savez(data, x=x[:cut], y=y[:cut], x_val=x[cut:], y_val=y[cut:])
    return model, data


def one(folder: Path, model: Path, data: Path, epochs: int, price: float | None, seed: int) -> dict[str, Any]:
    """One `compress`; without a price the input is not pruned."""
    out = folder / f"{price or 'bar'}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    method = ["--method", "bar"] if price is None else ["--method", "data", "--input-price", f"{price:g}"]
    method += ["--method-epochs", str(epochs), "--epochs", "5", "--seed", str(seed)]
    words = ["compress", str(model), "--data", str(data), "--budget-params", str(BUDGET), "--out", str(out)]
    found = edgefit(*words, *method, *FIXED)
    if found.returncode not in (0, 1):
        raise SystemExit(found.stderr)
    report = json.loads((out / "report.json").read_text())
    if (out / "inputs.svg").exists() and seed == 0:
        shutil.copy(out / "inputs.svg", HERE / f"inputs-{price:g}.svg")
    view = report["plan"]["inputs"]
    return {
        "price": price,
        "seed": seed,
        "epochs": epochs,
        "pixels": 64 if view is None else len(view["kept"]),
        "top1_before": report["baseline"]["metric"]["value"],
        "top1": report["result"]["metric"]["value"],
        "samples": report["result"]["metric"]["samples"],
        "params": report["result"]["cost"]["params"],
        "verdict": report["verdict"],
    }


def markdown(runs: list[dict[str, Any]]) -> str:
    """One row a price, over all seeds."""
    lines = [
        "# The input pruned with the network",
        "",
        "64-128-64-10 (17,226 parameters) on scikit-learn's digits, "
        f"top-1 {runs[0]['top1_before']:.2f} % of {runs[0]['samples']} samples, under {BUDGET:,} parameters:",
        f"learned for {runs[0]['epochs']} epochs, fine-tuned for 5. A sample is 0.28 points; the epoch of",
        "fine-tuning that is taken is the best on the same samples.",
        "",
        "| method | price of the input | pixels kept of 64 | top-1 | parameters |",
        "| --- | --- | --- | --- | --- |",
    ]
    for price in dict.fromkeys(run["price"] for run in runs):
        mine = [run for run in runs if run["price"] == price]
        name = (
            ("`bar`", "")
            if price is None
            else ("`data`", f"{price:g} nat{'s' * (price > 1)} ([picture](inputs-{price:g}.svg))")
        )
        columns = [
            ", ".join(form.format(run[key]) for run in mine)
            for key, form in (("pixels", "{}"), ("top1", "{:.2f}"), ("params", "{:,}"))
        ]
        lines.append(f"| {' | '.join([*name, *columns])} |")
    return "\n".join(
        [*lines, "", "Made by `python -m benchmarks.methods.inputs`, a column's values by seed.", ""]
    )


if __name__ == "__main__":
    raise SystemExit(main())
