"""`torchrun --nproc-per-node 2 edgefit compress ...`: as one process, to the end, resumed, and refused."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnxruntime
import pytest
import torch
from interrupting import ROOT, part_of

from tests.pairs import settings
from toolchain import cli
from toolchain.report.record import read_record

EPOCHS = 4
START = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """A part of the digits: short epochs."""
    return part_of(digits, 240, tmp_path_factory.mktemp("few"))


def words(few, out, *more):
    model, data = few
    fixed = ["--formats", "onnx", "--precision", "fp32", "--runtime", "onnxruntime", "--batch-size", "40"]
    learned = ["--method", "l0", "--method-epochs", EPOCHS, "--epochs", "1", "--criterion", "magnitude"]
    line = ["compress", model, "--data", data, "--budget-macs", "2M", *learned, *fixed, "--out", out, *more]
    return [str(word) for word in line]


def started(line, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*START, "-m", "toolchain.cli", *line], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def answers(path):
    x = np.random.default_rng(0).normal(size=(8, 1, 28, 28)).astype(np.float32)
    session = onnxruntime.InferenceSession(path)
    given = session.get_inputs()[0]
    return session.run(None, {given.name: x[:, :, : given.shape[2], : given.shape[3]]})[0]


def learned_epochs(work):
    for path in work.glob("learning-*/checkpoint.pt"):
        return len(torch.load(path, weights_only=True)["history"])
    return 0


@pytest.mark.slow
def test_two_processes_end_as_one_even_after_ctrl_c(few, tmp_path, capfd):
    one, two = tmp_path / "one", tmp_path / "two"
    assert cli.main(words(few, one, "--quiet")) == 0
    process = started(words(few, two), tmp_path)
    patience = time.monotonic() + 240
    while not learned_epochs(tmp_path / "two.work") and process.poll() is None:
        assert time.monotonic() < patience
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert out == ""
    said = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
    assert [line.split(" in epoch")[0] for line in said][:1] == ["error: learning interrupted"]
    assert len(said) == 2
    assert 1 <= learned_epochs(tmp_path / "two.work") < EPOCHS

    process = started(words(few, two, "--resume"), tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("BUDGET HELD") == 1
    records = [read_record(folder / "report.json") for folder in (one, two)]
    assert records[0]["plan"]["widths"] == records[1]["plan"]["widths"]
    losses = [[epoch["loss"] for epoch in r["training"]["epochs"]] for r in records]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)
    name = next(a["path"] for a in records[0]["result"]["artifacts"])
    wanted = answers(one / name)
    assert np.abs(answers(two / name) - wanted).max() < 0.02 * np.abs(wanted).max()
    assert json.loads((one / "plan.json").read_text())["keep"]


@pytest.mark.slow
def test_what_one_process_refuses_is_said_once(few, tmp_path):
    process = started(words((tmp_path / "no.pt2", few[1]), tmp_path / "out"), tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")  # what torchrun makes of any failure
    assert [line for line in err.splitlines() if line.startswith("error:")] == [
        f"error: model file not found: {tmp_path / 'no.pt2'}"
    ]
    assert "exitcode  : 2" in err or "exitcode: 2" in err


def test_a_command_that_does_not_train_has_no_use_for_others(few, tmp_path, monkeypatch, capfd):
    line = ["plan", few[0], "--budget-params", "1k", "--out", tmp_path / "out"]
    for name, value in settings(1, 1).items():
        monkeypatch.setenv(name, value)
    assert cli.main([*map(str, line)]) == 0
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
