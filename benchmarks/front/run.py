"""Several budgets in one run: the whole front of a network, and what sharing saves.

    python -m benchmarks.front.run --model resnet20_cifar10.pt2 --data cifar10 [--epochs 1] [--precision fp32]
    python -m benchmarks.front.run --model resnet20_cifar10.pt2 --data cifar10 --sharing empty|filled

The budgets are 0.75, 0.5 and 0.25 of the network's best measured latency in float. The first form runs
`compress` once with all three and keeps front.json, front.md and front.svg here (with `--precision fp32`
front_fp32.json and so on: int8 alone may hold a budget, float has to be pruned). The second times one
`edgefit plan` with three budgets beside three of them with one each (planning is what cases share;
fine-tuning is each case's own). Every run starts without finished stages. The user's cache of layer timings
stays from run to run: `--sharing empty` empties it before either way begins, `filled` leaves it as it is.
On a machine with other work compare the CPU times.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import re
import resource
import shutil
import time
from pathlib import Path

from benchmarks.commands import edgefit

HERE = Path(__file__).parent
SHARES = (0.75, 0.5, 0.25)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--precision", default="fp32,int8")
    parser.add_argument("--sharing", choices=("empty", "filled"))
    parser.add_argument("--out", type=Path, default=Path("build/front"))
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    best = best_float(flags)
    budgets = [f"{share * best:.4f}" for share in SHARES]
    return sharing(flags, budgets) if flags.sharing else whole_front(flags, budgets)


def best_float(flags: argparse.Namespace) -> float:
    """Milliseconds of the network as it is, in the best runtime."""
    found = edgefit("bench", str(flags.model), "--precision", "fp32", "--json")
    return min(m["p50_ms"] for m in json.loads(found.stdout)["baseline"]["measurements"])


def whole_front(flags: argparse.Namespace, budgets: list[str]) -> int:
    """`compress` with all budgets; its table and picture stay beside this file."""
    name = "front_fp32" if flags.precision == "fp32" else "front"
    out = flags.out / name
    words = ["--budget-ms", ",".join(budgets), "--precision", flags.precision, "--epochs", str(flags.epochs)]
    done = edgefit("compress", str(flags.model), "--data", str(flags.data), *words, "--out", str(out))
    print(done.stdout, done.stderr, flush=True)
    if not (out / "front.json").exists():
        return done.returncode
    record = json.loads((out / "front.json").read_text())
    for path in ("model", "data", "out"):
        record["request"][path] = path.upper()
    reports = [json.loads(path.read_text()) for path in out.glob("*/report.json")]
    record["conditions"] = reports[0]["result"]["measurements"][0]["conditions"] if reports else None
    record["command"] = " ".join(["compress MODEL --data DATA", *words])
    (HERE / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    text = (out / "front.md").read_text()
    (HERE / f"{name}.md").write_text(f"{text}\n`{record['command']}`\n\n![front]({name}.svg)\n")
    (HERE / f"{name}.svg").write_text(picture((out / "front.html").read_text()))
    return done.returncode


def picture(page: str) -> str:
    """The page's first picture as a file of its own."""
    svg = re.search(r"<svg.*?</svg>", page, re.DOTALL)
    assert svg is not None
    style = (importlib.resources.files("toolchain.report") / "style.css").read_text(encoding="utf-8")
    head, rest = svg.group().split(">", 1)
    sheet = f"<style>{style} svg {{ background:var(--card); }}</style>"
    return f'{head} xmlns="http://www.w3.org/2000/svg">{sheet}{rest}\n'


def sharing(flags: argparse.Namespace, budgets: list[str]) -> int:
    """Seconds of one run with all budgets and of one run for each."""
    fixed = [
        "plan",
        str(flags.model),
        "--data",
        str(flags.data),
        "--precision",
        flags.precision,
        "--budget-ms",
    ]
    cache, results = flags.out / "cache", HERE / "sharing.json"
    rows = []
    for name, lists in (("one run", [",".join(budgets)]), ("a run each", budgets)):
        if flags.sharing == "empty":
            shutil.rmtree(cache, ignore_errors=True)
        before, start, codes = children_cpu(), time.monotonic(), []
        for number, words in enumerate(lists):
            for left in flags.out.glob("plan*"):
                shutil.rmtree(left)
            done = edgefit(*fixed, words, "--out", str(flags.out / f"plan{number}"), cache=cache)
            codes.append(done.returncode)
        wall, cpu = round(time.monotonic() - start, 1), round(children_cpu() - before, 1)
        conditions = {"precision": flags.precision, "layer_timings": flags.sharing}
        found = {"runs": name, "wall_s": wall, "cpu_s": cpu, "codes": codes, "budgets_ms": budgets}
        rows.append(conditions | found)
        print(rows[-1], flush=True)
    earlier = json.loads(results.read_text())["rows"] if results.exists() else []
    kept = [row for row in earlier if any(row[name] != rows[0][name] for name in conditions)]
    record = {"command": "edgefit plan MODEL --data DATA --budget-ms MS", "rows": [*kept, *rows]}
    results.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def children_cpu() -> float:
    """CPU seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
