"""`compress --device`: planned with layers timed on the device, measured and verified there."""

import json

import pytest
import torch
from torch import nn

from targets._routes import qemu
from tests.runners import binary
from toolchain import cli
from toolchain.program.capture import capture, save_program
from toolchain.report.record import read_record


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Three convolutions of about a tenth of a millisecond each."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU()),
        *(
            nn.Conv2d(48, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 5),
        ),
    ).eval()
    path = tmp_path_factory.mktemp("network") / "small.pt2"
    save_program(capture(model, (torch.randn(2, 3, 32, 32),), name="small"), path)
    return path


def edgefit(words, capfd):
    code = cli.main([str(word) for word in (*words, "--quiet")])
    return code, *capfd.readouterr()


def timings(cache):
    """The device of every folder of layer timings, and how many layer shapes there are."""
    files = list((cache / "layer-timings").glob("*/*.json"))
    return {json.loads(file.read_text())["identity"]["device"] for file in files}, len(files)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("litert", marks=pytest.mark.slow)])
def test_it_plans_measures_and_verifies_on_the_device(runtime, network, board, tmp_path, monkeypatch, capfd):
    cache = tmp_path / "cache"
    cache.mkdir()
    program = binary()
    (cache / "runner").mkdir()
    (cache / "runner" / program.name).symlink_to(program)
    monkeypatch.setenv("EDGEFIT_CACHE", str(cache))
    form = {"onnxruntime": "onnx", "litert": "tflite"}[runtime]
    asked = [network, "--device", "ssh://board", "--runtime", runtime, "--precision", "fp32"]
    code, text, errors = edgefit(["bench", *asked, "--tier", "rapid", "--json"], capfd)
    assert (code, errors) == (0, "")
    whole = json.loads(text)["models"][0]["timing"]["p50"]["value"]
    out = tmp_path / "smaller"
    words = ["compress", *asked, "--budget-ms", f"{0.6 * whole:.4f}", "--formats", form, "--out", out]
    code, text, errors = edgefit(words, capfd)
    assert errors == ""
    assert text.splitlines()[0].endswith("small on ssh://board")
    record = read_record(out / "report.json")
    assert record["request"]["device"] == record["target"]["name"] == "ssh://board"
    assert record["predicted"] is None
    measured = record["baseline"]["measurements"] + record["result"]["measurements"]
    assert {m["conditions"]["device"] for m in measured} == {"ssh://board"}
    assert all(m["conditions"]["driver"].startswith("runner ") for m in measured)
    devices, shapes = timings(cache)
    assert devices == {"ssh://board"}
    assert shapes >= 2
    (check,) = [check for check in record["checks"] if check["name"] == "outputs on ssh://board"]
    assert check["status"] == "pass"
    assert check["value"] <= 1e-6  # the same kernels, the same processor
    assert record["rounds"]
    assert all(entry["measured_ms"] is not None for entry in record["rounds"])
    assert code == (0 if record["verdict"] == "held" else 1)
    assert board.left() == []
    assert len(list(board.folder.glob("files/*"))) < 12  # what was only timed is gone


def test_a_target_that_the_route_does_not_reach_is_refused(network, board, tmp_path, capfd):
    words = ["compress", network, "--target", "iphone", "--device", "ssh://board", "--budget-ms", "1"]
    code, _, errors = edgefit([*words, "--out", tmp_path / "out"], capfd)
    assert code == 2
    assert errors.startswith("error: target 'iphone' is not reached by ssh")
    words[3] = "jetson"
    code, _, errors = edgefit([*words, "--out", tmp_path / "out"], capfd)
    assert code == 2
    assert "on ssh://board in onnxruntime, litert, target 'jetson' is for tensorrt" in errors
    words[3] = "jetson,traffic-camera"
    code, _, errors = edgefit([*words, "--out", tmp_path / "out"], capfd)
    assert code == 2
    assert "one --device cannot be several targets" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_emulated_core_checks_the_files_and_gives_no_time(network, tmp_path, capfd):
    for need in qemu._needs():
        if not need.found:
            pytest.skip(f"no {need.name}: {need.hint}")
    camera, device = "traffic-camera:cortex-a53", "qemu:cortex-a53"
    words = ["compress", network, "--target", camera, "--device", device, "--budget-macs", "14M"]
    out = tmp_path / "out"
    code, _, errors = edgefit([*words, "--precision", "fp32", "--formats", "tflite", "--out", out], capfd)
    assert (code, errors) == (0, "")
    record = read_record(out / "report.json")
    checks = [check for check in record["checks"] if check["name"] == f"outputs on {device}"]
    assert len(checks) == len(record["result"]["artifacts"])
    assert {check["status"] for check in checks} == {"pass"}
    assert all("instructions an inference" in check["detail"] for check in checks)
    assert record["result"]["measurements"] == []
    assert any("no time was taken" in note for note in record["notes"])


@pytest.mark.slow
def test_int8_is_calibrated_here_and_measured_and_compared_there(digits, board, tmp_path, capfd):
    model, data = digits
    out = tmp_path / "smaller"
    asked = [model, "--device", "ssh://board", "--data", data, "--runtime", "onnxruntime"]
    words = ["compress", *asked, "--precision", "int8", "--epochs", "0", "--formats", "onnx", "--out", out]
    code, _, errors = edgefit([*words, "--budget-macs", "4M"], capfd)
    assert (code, errors) == (0, "")
    record = read_record(out / "report.json")
    checks = [check for check in record["checks"] if check["name"] == "outputs on ssh://board"]
    assert len(checks) == len(record["result"]["artifacts"]) == 2
    assert {check["status"] for check in checks} == {"pass"}
    assert {m["conditions"]["device"] for m in record["result"]["measurements"]} == {"ssh://board"}
    assert board.left() == []
