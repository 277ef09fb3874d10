"""`--classes` through the command line: two digits out of ten, pruned, delivered, replayed."""

import json

import numpy as np
import pytest
from interrupting import part_of

from toolchain import cli
from toolchain.report.record import read_record


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """A part of the digits: short epochs."""
    return part_of(digits, 400, tmp_path_factory.mktemp("few"))


FIXED = ("--formats", "onnx", "--precision", "fp32", "--runtime", "onnxruntime", "--quiet")


@pytest.mark.slow
def test_a_network_for_two_classes_under_a_budget(few, tmp_path, capfd):
    model, data = few
    out = tmp_path / "out"
    asked = [model, "--data", data, "--classes", "3,8", "--budget-macs", "2M", "--epochs", "8", "--out", out]
    assert cli.compress([*map(str, asked), *FIXED]) == 0
    assert capfd.readouterr().err == ""
    record = read_record(out / "report.json")
    assert record["verdict"] == "held"
    assert record["result"]["cost"]["macs"] <= 2_000_000
    assert any("specialised on 2 of 10 classes" in note for note in record["notes"])
    assert record["model"]["outputs"][0]["shape"][1] == 2
    with np.load(data) as arrays:
        wanted = int(np.isin(arrays["y_val"], (3, 8)).sum())
    assert record["data"]["validation"] == wanted
    assert record["result"]["metric"]["samples"] == wanted
    assert record["result"]["metric"]["value"] > 80, "guessing gives half"

    import onnxruntime as ort

    session = ort.InferenceSession(str(out / f"{model.stem}.onnx"))
    assert session.get_outputs()[0].shape[1] == 2

    again = [model, "--data", data, "--classes", "3,8", "--apply", out / "plan.json", "--epochs", "0"]
    assert cli.main(["plan", *map(str, again), *FIXED, "--out", str(tmp_path / "again")]) == 0
    replayed = read_record(tmp_path / "again" / "report.json")
    assert replayed["result"]["cost"] == record["result"]["cost"]
    capfd.readouterr()
    without = [w for w in again if w not in ("--classes", "3,8")]
    assert cli.main(["plan", *map(str, without), *FIXED, "--out", str(tmp_path / "x")]) == 2
    assert json.loads((out / "plan.json").read_text())["keep"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["planner", "l1l2"])
def test_a_segmenter_for_two_classes_under_a_budget(method, patches, tmp_path, capfd):
    model, data = patches
    out = tmp_path / "out"
    asked = [model, "--data", data, "--classes", "0,2", "--budget-macs", "700k", "--method", method]
    asked += ["--method-epochs", "2", "--epochs", "2", "--metric", "miou", "--out", out]
    assert cli.compress([*map(str, asked), *FIXED]) == 0
    assert capfd.readouterr().err == ""
    record = read_record(out / "report.json")
    assert record["verdict"] == "held"
    assert record["model"]["outputs"][0]["shape"][1:] == [2, 16, 16]
    assert record["result"]["metric"]["name"] == "miou"
    assert record["result"]["metric"]["value"] > 80, "of pixels of the two classes; others are passed over"

    import onnxruntime as ort

    with np.load(data) as arrays:
        x, y = arrays["x_val"][:20], arrays["y_val"][:20]
    found = ort.InferenceSession(str(out / "patches.onnx")).run(
        None, {record["model"]["inputs"][0]["name"]: x}
    )
    mine = np.isin(y, (0, 2))
    assert (np.array((0, 2))[found[0].argmax(1)] == y)[mine].mean() > 0.9


def test_a_class_that_is_not_there_is_refused(few, tmp_path, capfd):
    asked = [few[0], "--data", few[1], "--classes", "3,12", "--budget-macs", "2M", "--out", tmp_path / "out"]
    assert cli.compress([*map(str, asked), "--quiet"]) == 2
    assert "no class '12'" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
