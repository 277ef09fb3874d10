"""`make demo`: train a small CNN, measure it, compress it to half its own measured latency.

Only the command line is used after the training, as a user would.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.digits.network import prepare


def main() -> int:
    """Returns the exit code of `compress`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--share", type=float, default=0.5, help="budget as a share of the measured latency")
    parser.add_argument("--epochs", type=int, default=8, help="of training the network to start from")
    flags = parser.parse_args()

    start = time.monotonic()
    torch.set_num_threads(1)  # the network is too small to gain from more, and the same everywhere this way
    print("1/3  training a small CNN on scikit-learn's digits", flush=True)
    model, data, accuracy = prepare(flags.out, epochs=flags.epochs)
    print(f"     {model}: {accuracy:.2f} % of the validation digits, {time.monotonic() - start:.0f} s\n")

    print(f"2/3  edgefit bench {model}", flush=True)
    fastest_ms = measured_ms(model)
    budget_ms = flags.share * fastest_ms
    print(f"     median {fastest_ms:.4f} ms; the budget is {flags.share:g} of it: {budget_ms:.4f} ms\n")

    out = flags.out / "smaller"
    words = [model, "--data", data, "--budget-ms", f"{budget_ms:.4f}", "--epochs", "5", "--out", out]
    print(f"3/3  compress {' '.join(map(str, words))}", flush=True)
    code = subprocess.run(edgefit("compress", *words), check=False).returncode
    print(f"\n{time.monotonic() - start:.0f} s in all")
    if code in (0, 1):  # with any other, what lies there is of an earlier run
        print(f"the proof, for a browser: {out / 'report.html'}")
        print("next: a tighter budget, here 15 % of the measured latency: make demo SHARE=0.15")
    return code


def measured_ms(model: Path) -> float:
    """The fp32 median of the fastest runtime, as `edgefit bench` measures it."""
    words = edgefit("bench", model, "--precision", "fp32", "--json")
    found = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return min(m["p50_ms"] for m in json.loads(found)["baseline"]["measurements"])


def edgefit(*words: object) -> list[str]:
    """The command line, with the Python that runs this."""
    return [sys.executable, "-m", "toolchain.cli", *map(str, words)]


if __name__ == "__main__":
    sys.exit(main())
