"""The main job through the command line, on real (small) networks; and the demo as `make demo` runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import cli
from toolchain.program.capture import capture, save_program
from toolchain.report.record import chosen_artifact, read_record

ROOT = Path(__file__).parents[2]


def compress(words, capfd):
    """(exit code, stdout, stderr) of `compress`, in this process."""
    code = cli.compress([str(word) for word in words])
    return code, *capfd.readouterr()


@pytest.mark.slow
def test_without_data_by_parameters(digits, tmp_path, capfd):
    """No measuring of accuracy, no fine-tuning, one format: the shortest way through the whole house."""
    model, _ = digits
    out = tmp_path / "smaller"
    words = [model, "--budget-params", "150k", "--formats", "onnx", "--precision", "fp32", "--out", out]
    code, text, progress = compress(words, capfd)
    assert code == 0, progress
    assert text.startswith("BUDGET HELD")
    assert "not measured" in text
    record = read_record(out / "report.json")
    assert record["result"]["cost"]["params"] <= 150_000 < record["baseline"]["cost"]["params"]
    assert record["result"]["metric"] is None
    assert {check["status"] for check in record["checks"]} <= {"pass", "not run"}
    assert chosen_artifact(record)["format"] == "onnx"
    names = {"plan.json", "report.json", "report.md", "report.html"}
    assert {p.name for p in out.iterdir()} == names | {a["path"] for a in record["result"]["artifacts"]}
    assert [
        line for line in progress.splitlines() if "arn" in line and ("W0" in line or "Warning" in line)
    ] == []

    again = tmp_path / "again"
    words = [model, "--apply", out / "plan.json", "--formats", "onnx", "--precision", "fp32", "--out", again]
    assert cli.main(["plan", *map(str, words), "--quiet"]) == 0
    assert capfd.readouterr().err == ""
    replayed = read_record(again / "report.json")
    assert replayed["plan"]["widths"] == record["plan"]["widths"]
    assert replayed["result"]["cost"] == record["result"]["cost"]


@pytest.mark.slow
def test_with_data_in_all_formats(digits, tmp_path, capfd):
    model, data = digits
    out = tmp_path / "smaller"
    words = [model, "--data", data, "--budget-macs", "3M", "--epochs", "2", "--out", out, "--quiet"]
    code, _, err = compress(words, capfd)
    assert (code, err) == (0, "")
    record = read_record(out / "report.json")
    assert record["exit_code"] == 0
    assert record["result"]["cost"]["macs"] <= 3_000_000
    assert {a["format"] for a in record["result"]["artifacts"]} == {"onnx", "coreml", "tflite"}
    assert all((out / a["path"]).exists() for a in record["result"]["artifacts"])
    assert [c for c in record["checks"] if c["status"] == "fail"] == []
    assert record["result"]["metric"]["value"] > record["baseline"]["metric"]["value"] - 5


def test_unreachable_budget_leaves_nothing_half_written(digits, tmp_path, capfd):
    """Exit 4, the best plan kept, no result folder."""
    model, _ = digits
    out = tmp_path / "smaller"
    words = [
        model,
        "--budget-macs",
        "10",
        "--formats",
        "onnx",
        "--precision",
        "fp32",
        "--out",
        out,
        "--quiet",
    ]
    code, text, err = compress(words, capfd)
    assert (code, text) == (4, "")
    assert err.startswith("error: budget not reached")
    assert not out.exists()
    assert json.loads((tmp_path / "smaller.work" / "best-plan.json").read_text())["keep"]


def test_corrupt_images_are_named_skipped_and_counted(digits, tmp_path, capfd):
    """`edgefit bench` on an image folder with two broken files: they are in the record, the rest is used."""
    from PIL import Image

    model, data = digits
    arrays = np.load(data)
    for split, suffix, amount in (("train", "", 100), ("val", "_val", 50)):
        for x, y in zip(arrays[f"x{suffix}"][:amount], arrays[f"y{suffix}"][:amount], strict=True):
            folder = tmp_path / "images" / split / str(y)
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{len(list(folder.iterdir()))}.png"
            Image.fromarray((x[0] * 255).astype(np.uint8), mode="L").save(folder / name)
    (tmp_path / "images" / "train" / "3" / "broken.png").write_bytes(b"\x89PNG nothing more")
    (tmp_path / "images" / "val" / "4" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    words = [
        "bench",
        model,
        "--data",
        tmp_path / "images",
        "--mean",
        "0",
        "--std",
        "1",
        "--precision",
        "fp32",
    ]
    code = cli.main([*map(str, words), "--runtime", "onnxruntime", "--json", "--quiet"])
    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert sorted(Path(name).name for name in found["data"]["skipped"]) == ["broken.png", "cut.jpg"]
    assert (found["data"]["train"], found["data"]["validation"]) == (100, 50)
    assert found["baseline"]["metric"]["samples"] == 50
    (measured,) = found["baseline"]["measurements"]
    assert 0 < measured["p50_low_ms"] <= measured["p50_ms"] <= measured["p50_high_ms"]
    assert found["verdict"] == "not measured"


def test_demo(tmp_path):
    """What `make demo` runs once the environment is there. Exit 1: a busy machine was inconclusive."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.digits.demo", "--out", tmp_path / "demo"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "BUDGET" in done.stdout or "INCONCLUSIVE" in done.stdout
    assert "Traceback" not in done.stderr
    out = tmp_path / "demo" / "smaller"
    assert (out / "report.html").is_file()
    record = read_record(out / "report.json")
    assert record["verdict"] in ("held", "inconclusive", "over")
    assert record["baseline"]["metric"]["value"] > 95
    assert record["result"]["metric"]["value"] > record["baseline"]["metric"]["value"] - 5
    assert {a["format"] for a in record["result"]["artifacts"]} == {"onnx", "coreml", "tflite"}


@pytest.mark.slow
def test_a_smaller_input_where_it_loses_less(blots, tmp_path, capfd):
    """Planned, tuned, exported and judged at the new size; named in the report; replayed."""
    model, data = blots
    out = tmp_path / "smaller"
    words = [model, "--data", data, "--budget-macs", "80k", "--allow-resize", "12,8", "--formats", "onnx"]
    words += ["--precision", "fp32", "--runtime", "onnxruntime"]
    code, text, progress = compress([*words, "--epochs", "1", "--out", out], capfd)
    assert code == 0, progress
    assert "input 16 x 16 -> 12 x 12" in text
    record = read_record(out / "report.json")
    assert record["plan"]["resize"] == [[16, 16], [12, 12]]
    assert record["result"]["cost"]["macs"] <= 80_000
    assert [c["status"] for c in record["checks"]] == ["pass"] * len(record["checks"])
    tried = {tuple(c["resize"] or (16, 16)): c for c in record["plan"]["candidates"]}
    assert set(tried) == {(16, 16), (12, 12), (8, 8)}
    assert tried[12, 12]["chosen"]
    assert tried[12, 12]["damage"] < tried[8, 8]["damage"]
    assert _input_of(out / "blots.onnx") == [3, 12, 12]
    assert any(note.startswith("fine-tuning: the original sees") for note in record["notes"])

    again = tmp_path / "again"
    words = [model, "--data", data, "--apply", out / "plan.json", "--formats", "onnx", "--epochs", "0"]
    assert cli.main(["plan", *map(str, words), "--quiet", "--out", str(again)]) == 0
    assert capfd.readouterr().err == ""
    replayed = read_record(again / "report.json")
    assert replayed["plan"]["resize"] == [[16, 16], [12, 12]]
    assert replayed["result"]["cost"] == record["result"]["cost"]
    assert _input_of(again / "blots.onnx") == [3, 12, 12]


def test_a_network_that_holds_its_size_keeps_it_and_says_why(tmp_path, capfd):
    torch.manual_seed(0)
    flattening = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    save_program(capture(flattening, (torch.randn(2, 1, 8, 8),), name="flat"), tmp_path / "flat.pt2")
    x, y = np.random.default_rng(0).normal(size=(60, 1, 8, 8)).astype(np.float32), np.arange(60) % 3
    np.savez(tmp_path / "flat.npz", x=x, y=y)
    words = [tmp_path / "flat.pt2", "--data", tmp_path / "flat.npz", "--budget-macs", "2k", "--allow-resize"]
    words += ["--precision", "fp32", "--runtime", "onnxruntime", "--out", tmp_path / "plan", "--quiet"]
    assert cli.main(["plan", *map(str, words)]) == 0
    assert capfd.readouterr().err == ""
    record = read_record(tmp_path / "plan" / "report.json")
    assert record["plan"]["resize"] is None
    why = "--allow-resize: 7 x 7: the input keeps its size: linear.default (node linear): it does not run"
    assert next(n for n in record["notes"] if n.startswith("--allow")).startswith(why)


def test_a_size_that_is_not_smaller_is_refused_before_anything_is_measured(blots, tmp_path, capfd):
    model, data = blots
    words = [model, "--data", data, "--budget-macs", "80k", "--allow-resize", "12,24", "--out", tmp_path]
    assert cli.main(["plan", *map(str, words)]) == 2
    printed = capfd.readouterr().err
    assert "error: 24 x 24 is not smaller than the network's input 16 x 16" in printed
    assert "Latency" not in printed


def _input_of(path):
    import onnx

    return [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim][1:]
