"""Ctrl-C during fine-tuning, `--finish` with what there is, `--resume` to the end, the same command again."""

import json

import pytest
import torch
from interrupting import interrupted, part_of

from benchmarks.digits.network import prepare
from toolchain import cli
from toolchain.report.record import chosen_measurement, read_record

EPOCHS = 6


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """A part of the digits: short epochs of many steps."""
    return part_of(digits, 240, tmp_path_factory.mktemp("few"))


def words(few, out, *more):
    model, data = few
    fixed = ["--formats", "onnx", "--precision", "fp32", "--criterion", "magnitude", "--batch-size", "8"]
    found = [model, "--data", data, "--budget-macs", "4M", "--epochs", EPOCHS, *fixed, "--out", out, *more]
    return [str(word) for word in found]


def finished_epochs(work):
    """Epochs in the checkpoint of the only fine-tuning in this work folder."""
    for path in work.glob("training-*/checkpoint.pt"):
        return len(torch.load(path, weights_only=True)["history"])
    return 0


def interrupt_in_the_second_epoch(few, out):
    """(exit code, stdout, stderr) of a run that gets a SIGINT as soon as one epoch is kept."""
    work = out.with_name(f"{out.name}.work")
    return interrupted(["compress", *words(few, out)], out.parent, lambda: finished_epochs(work), every=0.05)


def contents(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_interrupted_finished_resumed_and_repeated(few, tmp_path, capfd):
    out, work = tmp_path / "smaller", tmp_path / "smaller.work"
    code, text, progress = interrupt_in_the_second_epoch(few, out)
    assert (code, text) == (130, ""), progress
    assert "Traceback" not in progress
    error, hint = progress.splitlines()[-2:]
    assert error.startswith("error: fine-tuning interrupted in epoch")
    assert error.endswith("finished epochs are kept")
    assert "--resume continues; --resume --finish" in hint
    assert not out.exists()
    assert not list(tmp_path.rglob("*.partial*"))
    kept = finished_epochs(work)
    assert 1 <= kept < EPOCHS

    assert cli.compress(words(few, out, "--resume", "--finish", "--quiet")) == 0
    early = read_record(out / "report.json")
    assert len(early["training"]["epochs"]) == kept
    assert any(f"after {kept} of {EPOCHS} epochs" in note for note in early["notes"])

    assert cli.compress(words(few, out, "--resume", "--quiet")) == 0
    whole = read_record(out / "report.json")
    assert [e["epoch"] for e in whole["training"]["epochs"]] == list(range(1, EPOCHS + 1))
    assert whole["training"]["epochs"][:kept] == early["training"]["epochs"]
    assert whole["plan"] == early["plan"]
    assert not any("epochs" in note for note in whole["notes"])

    before = contents(work)
    assert cli.compress(words(few, out, "--quiet")) == 0
    again = read_record(out / "report.json")
    assert contents(work) == before, "a finished stage was made anew"
    figures = ("model", "data", "baseline", "plan", "training", "result", "checks", "budget", "exit_code")
    assert {key: again[key] for key in figures} == {key: whole[key] for key in figures}
    assert chosen_measurement(again)["samples_ms"] == chosen_measurement(whole)["samples_ms"]
    assert any("reused" in note for note in again["notes"])
    assert capfd.readouterr().err == ""


def test_nothing_to_resume(few, tmp_path, capfd):
    assert cli.compress(words(few, tmp_path / "smaller", "--resume")) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-2].startswith("error: nothing to resume")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_plan_is_replayed_only_on_its_own_network(digits, tmp_path, capfd):
    """A plan of one network is refused for another, before anything is written."""
    model, _ = digits
    fixed = ["--budget-params", "150k", "--formats", "onnx", "--precision", "fp32", "--quiet"]
    assert cli.main(["plan", str(model), *fixed, "--out", str(tmp_path / "plan")]) == 0
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())["keep"]
    other, _, _ = prepare(tmp_path / "other", epochs=1)
    capfd.readouterr()
    line = ["plan", str(other), "--apply", str(tmp_path / "plan" / "plan.json"), *fixed[2:]]
    assert cli.main([*line, "--out", str(tmp_path / "result")]) == 2
    assert "the plan was made for network" in capfd.readouterr().err
    assert not (tmp_path / "result").exists()
