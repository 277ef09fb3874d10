"""The main job through the command line, on real (small) networks; and the demo as `make demo` runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.digits.network import prepare
from toolchain import cli
from toolchain.report.record import chosen_artifact, read_record

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A trained CNN and its data."""
    model, data, accuracy = prepare(tmp_path_factory.mktemp("digits"), epochs=2)
    assert accuracy > 80
    return model, data


def compress(words, capfd):
    """(exit code, stdout, stderr) of `compress`, in this process."""
    code = cli.compress([str(word) for word in words])
    return code, *capfd.readouterr()


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
    record = read_record(out / "report.json")
    assert code == record["exit_code"]
    assert err == ""
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


@pytest.mark.slow
def test_demo(tmp_path):
    """What `make demo` runs once the environment is there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.digits.demo", "--out", tmp_path / "demo"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "BUDGET" in done.stdout or "INCONCLUSIVE" in done.stdout
    assert (tmp_path / "demo" / "smaller" / "report.html").is_file()
    assert "Traceback" not in done.stderr
