"""Mixed precision through the command line: a layer that int8 ruins is found and stays in float."""

import json

import numpy as np
import pytest
import torch

from toolchain import cli
from toolchain.export.onnx import open_file
from toolchain.load import load
from toolchain.program.capture import save_program
from toolchain.report.record import chosen_artifact, read_record

RUINED = "3.weight"
ALONE = ["--epochs", "0", "--quiet"]


@pytest.fixture(scope="module")
def planted(blots, tmp_path_factory):
    """The network of `blots` whose second convolution has huge weights for a channel that is always zero.

    They change no output, but leave nothing of the other weights in 8 bits.
    """
    model, data = blots
    program = load(model)
    tensors = dict(program.module.named_parameters())
    with torch.no_grad():
        tensors["1.weight"][0], tensors["1.bias"][0] = 0.0, -1.0
        tensors[RUINED][:, 0] = 300 * torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("planted") / "planted.pt2"
    save_program(program, path)
    return path, data


def run(command, words, capfd):
    """(exit code, stderr)."""
    code = cli.main([command, *map(str, words)])
    return code, capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_the_ruined_layer_stays_in_float_and_accuracy_comes_back(planted, runtime, tmp_path, capfd):
    model, data = planted
    out = tmp_path / "out"
    words = [model, "--data", data, "--budget-ms", "1000", "--precision", "mixed", "--runtime", runtime]
    code, err = run("compress", [*words, *ALONE, "--out", out], capfd)
    assert (code, err) == (0, "")
    record = read_record(out / "report.json")
    assert record["plan"]["precision"] == "mixed"
    assert RUINED.removesuffix(".weight") in record["plan"]["in_float"]
    assert any("costs" in note and "int8" in note for note in record["notes"])
    before = record["baseline"]["metric"]["value"]
    files = {a["format"]: a for a in record["result"]["artifacts"] if a["precision"] == "mixed"}
    assert set(files) == {"onnx", "tflite"}
    assert all(before - a["metric"]["value"] <= 1 for a in files.values())
    assert chosen_artifact(record)["precision"] == "mixed"
    assert {c["status"] for c in record["checks"]} <= {"pass", "not run"}
    text = (out / "report.md").read_text()
    assert "in float" in text
    assert RUINED in json.loads((out / "plan.json").read_text())["in_float"]


def test_all_layers_in_int8_can_be_asked_for(planted, tmp_path, capfd):
    """It costs more points than allowed here, so there is nothing left to plan with."""
    model, data = planted
    words = [model, "--data", data, "--budget-ms", "1000", "--precision", "int8", "--runtime", "onnxruntime"]
    code, err = run("plan", [*words, "--out", tmp_path / "plan", "--quiet"], capfd)
    assert code == 4
    assert "int8 in onnxruntime costs" in err
    words += ["--max-drop", "100", "--formats", "onnx"]
    code, err = run("compress", [*words, *ALONE, "--out", tmp_path / "out"], capfd)
    record = read_record(tmp_path / "out" / "report.json")
    assert record["plan"]["precision"] == "int8"
    assert record["plan"]["in_float"] == []


@pytest.mark.slow
def test_with_channels_cut_replayed_and_resumed(planted, tmp_path, capfd):
    """The plan names the layers; carrying it out keeps them in float in what is left of the network."""
    model, data = planted
    out = tmp_path / "plan"
    words = [model, "--data", data, "--precision", "mixed", "--runtime", "onnxruntime"]
    code, err = run("plan", [*words, "--budget-params", "400", "--out", out, "--quiet"], capfd)
    assert (code, err) == (0, "")
    plan = json.loads((out / "plan.json").read_text())
    assert (plan["precision"], RUINED in plan["in_float"], bool(plan["keep"])) == ("mixed", True, True)

    words += ["--apply", out / "plan.json", "--formats", "onnx", *ALONE, "--out", tmp_path / "done"]
    assert run("plan", words, capfd) == (0, "")
    record = read_record(tmp_path / "done" / "report.json")
    assert record["plan"]["in_float"] == [name.removesuffix(".weight") for name in plan["in_float"]]
    kept = _float_convolutions(tmp_path / "done" / chosen_artifact(record)["path"], tmp_path)
    assert kept == len([name for name in plan["in_float"] if name in ("0.weight", RUINED)])
    assert run("plan", [*words, "--resume"], capfd) == (0, "")
    again = read_record(tmp_path / "done" / "report.json")
    assert chosen_artifact(again)["sha256"] == chosen_artifact(record)["sha256"]


def _float_convolutions(path, folder):
    """How many convolutions ONNX Runtime executes in float."""
    import onnx
    import onnxruntime as ort

    assert open_file(path).run((np.zeros((1, 3, 16, 16), np.float32),))[0].shape == (1, 3)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(folder / "fused.onnx").graph.node]
    assert "QLinearConv" in kinds
    return kinds.count("Conv") + kinds.count("FusedConv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_float": ["absent.weight"]}, "absent.weight"),
        ({"in_float": []}, "0 layers in float"),
        ({"precision": "int8"}, "layers in float"),
    ],
)
def test_plans_that_do_not_fit_are_refused(planted, tmp_path, capfd, change, message):
    model, data = planted
    made = tmp_path / "made"
    words = [model, "--data", data, "--precision", "fp32", "--runtime", "onnxruntime", "--quiet"]
    assert run("plan", [*words, "--budget-params", "400", "--out", made], capfd) == (0, "")
    plan = json.loads((made / "plan.json").read_text())
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(plan | {"precision": "mixed", "in_float": [RUINED]} | change))
    code, err = run("plan", [*words, "--apply", wrong, "--out", tmp_path / "out"], capfd)
    assert code == 2
    assert message in err
