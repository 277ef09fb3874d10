"""How small do weights get on disk, and what does it cost? LeNet-5, and any network that is given.

    python -m benchmarks.methods.storage [--data cifar10] [--model resnet20_cifar10.pt2]

LeNet-5 on scikit-learn's digits; with `--data`, a folder of 32 x 32 images, also a LeNet-5 trained on it;
with `--model` also that network. Each line is one `compress --store ...` command as a user would run it; the
packed file is restored by `edgefit restore` and compared with the model file. storage.json and storage.md are
replaced after every run; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.commands import edgefit
from benchmarks.methods.lenet import of_digits, of_images

HERE = Path(__file__).parent
RESULTS = HERE / "storage.json"
FIXED = ("--formats", "onnx", "--runtime", "onnxruntime", "--quiet")
FORMS: Mapping[str, tuple[str, ...]] = {
    "palette of 8 bits": ("--store", "palette:8"),
    "palette of 5 bits": ("--store", "palette:5"),
    "palette of 4 bits": ("--store", "palette:4"),
    "palette of 3 bits": ("--store", "palette:3"),
    "palette of 3 bits for every 16 channels": ("--store", "palette:3", "--palette-channels", "16"),
    "fixed point 2.6, nearest": ("--store", "fixed:2.6"),
    "fixed point 2.6, stochastic": ("--store", "fixed:2.6", "--rounding", "stochastic"),
    "fixed point 1.4, nearest": ("--store", "fixed:1.4"),
    "fixed point 1.4, stochastic": ("--store", "fixed:1.4", "--rounding", "stochastic"),
    "ternary": ("--store", "ternary"),
    "binary": ("--store", "binary"),
    "80 % zeros": ("--sparsity", "0.8"),
    "80 % zeros, palette of 4 bits": ("--store", "palette:4", "--sparsity", "0.8"),
    "90 % zeros, palette of 5 bits": ("--store", "palette:5", "--sparsity", "0.9"),
    "92 % zeros, palette of 5 bits": ("--store", "palette:5", "--sparsity", "0.92"),
    "95 % zeros, palette of 4 bits": ("--store", "palette:4", "--sparsity", "0.95"),
    "97 % zeros, palette of 4 bits": ("--store", "palette:4", "--sparsity", "0.97"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with train/ and val/ of 32 x 32 images")
    parser.add_argument("--model", type=Path, help="a network for these images")
    parser.add_argument("--epochs", type=int, help="of each part (10 for digits, 3 for images)")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--skip", nargs="*", choices=("digits", "lenet", "model"), default=[])
    parser.add_argument("--out", type=Path, default=Path("build/storage"))
    flags = parser.parse_args()
    cases: list[tuple[Path, Path, int]] = []
    if "digits" not in flags.skip:
        cases.append((*of_digits(flags.out), flags.epochs or 10))
    if flags.data is not None and "lenet" not in flags.skip:
        cases.append((*of_images(flags.out, flags.data), flags.epochs or 3))
    if flags.model is not None and "model" not in flags.skip:
        cases.append((flags.model, flags.data, flags.epochs or 3))
    runs: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {(run["model"], run["form"], run["epochs"]) for run in runs}
    for model, data, epochs in cases:
        for form in flags.forms:
            if (model.stem, form, epochs) not in done:
                runs.append(one(flags.out, model, data, epochs, form))
                print(json.dumps({k: v for k, v in runs[-1].items() if k != "layers"}), flush=True)
                RESULTS.write_text(json.dumps(runs, indent=1) + "\n")
                RESULTS.with_suffix(".md").write_text(markdown(runs))
    return 0


def one(folder: Path, model: Path, data: Path, epochs: int, form: str) -> dict[str, Any]:
    """One `compress`, its packed file restored and compared."""
    out = folder / f"{model.stem}-{form.replace(' ', '-').replace(',', '').replace('%', '')}"
    shutil.rmtree(out, ignore_errors=True)
    words = ["compress", str(model), "--data", str(data), "--out", str(out), *FIXED]
    found = edgefit(*words, "--store-epochs", str(epochs), "--batch-size", "64", *FORMS[form])
    if found.returncode not in (0, 1):
        raise SystemExit(found.stderr)
    report = json.loads((out / "report.json").read_text())
    (file,) = report["storage"]["files"]
    again = out / "again.onnx"
    restored = edgefit("restore", str(out / file["path"]), "--out", str(again))
    same = restored.returncode == 0 and again.read_bytes() == (out / file["restores"]).read_bytes()
    return {
        "model": model.stem,
        "params": report["baseline"]["cost"]["params"],
        "form": form,
        "epochs": epochs,
        "command": " ".join(FORMS[form]),
        "top1_before": report["baseline"]["metric"]["value"],
        "top1": report["result"]["artifacts"][0]["metric"]["value"],
        "samples": report["result"]["metric"]["samples"],
        "zeros": report["storage"]["zeros"],
        "original_bytes": file["original_bytes"],
        "stored_bytes": file["size_bytes"],
        "same": same,
        "checks": [check["status"] for check in report["checks"]],
        "seconds": report["timings"].get("store", 0.0),
        "layers": file["layers"],
    }


def markdown(runs: list[dict[str, Any]]) -> str:
    """A table for each network."""
    lines = [
        "# Stored weights",
        "",
        "Sizes are those of whole files: the original's ONNX file in float against the packed ONNX file",
        "(graph, names, metadata, tables and codes included). Top-1 is that of the ONNX file with the stored",
        "weights, on the validation samples; the epoch taken is the best on the same samples. `restored`:",
        "`edgefit restore` made the model file again, byte for byte. Fine-tuned with the original as",
        "teacher, the epochs given for zeros and again for shared weights.",
    ]
    for name in dict.fromkeys(run["model"] for run in runs):
        mine = [run for run in runs if run["model"] == name]
        first = mine[0]
        lines += [
            "",
            f"## {name}: {first['params']:,} parameters, {first['original_bytes']:,} bytes, "
            f"top-1 {first['top1_before']:.2f} % of {first['samples']:,} samples",
            "",
            "| weights | flags | epochs | zero | bytes | smaller | top-1 | difference | restored |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for run in mine:
            lines.append(
                f"| {run['form']} | `{run['command']}` | {run['epochs']} | {100 * run['zeros']:.1f} % | "
                f"{run['stored_bytes']:,} | {run['original_bytes'] / run['stored_bytes']:.1f}x | "
                f"{run['top1']:.2f} % | {run['top1'] - run['top1_before']:+.2f} | "
                f"{'yes' if run['same'] else 'NO'} |"
            )
    return "\n".join(
        [*lines, "", "Made by `python -m benchmarks.methods.storage --data DIR --model MODEL`.", ""]
    )


if __name__ == "__main__":
    raise SystemExit(main())
