"""`edgefit bench FILE --device host`: what comes out is what ran, errors are one line."""

import json
from pathlib import Path

import pytest

from targets._routes.host import ThisMachine
from tests.runners import small_onnx, small_tflite
from toolchain import benching, cli
from toolchain.artifacts import content_hash
from toolchain.contracts import BenchSettings, Silent, Tier
from toolchain.errors import DeviceError, InputError

SHORT = Tier(name="rapid", runs=64, seconds=0.4, trials=8)


@pytest.fixture(autouse=True)
def short_tiers(monkeypatch):
    monkeypatch.setitem(benching.TIERS, "rapid", SHORT)
    long = Tier(name="sustained", runs=10, seconds=0.5, trials=1, windows=5)
    monkeypatch.setitem(benching.TIERS, "sustained", long)


@pytest.fixture(params=["a.onnx", "a.tflite"])
def model(request, tmp_path):
    path = tmp_path / request.param
    return small_onnx(path) if path.suffix == ".onnx" else small_tflite(path)


def run(capsys, *words):
    code = cli.main(["bench", *map(str, words), "--quiet"])
    return code, *capsys.readouterr()


def test_a_file_is_measured_as_it_is(model, capsys):
    code, out, _ = run(capsys, model, "--device", "host", "--tier", "rapid", "--json")
    record = json.loads(out)
    (found,) = record["models"]
    timing = found["timing"]
    assert code == 0
    assert record["schema"] == "edgefit.bench/1"
    assert record["settings"]["tier"]["name"] == "rapid"
    assert record["driver"].split()[0] in ("runner", "python")
    assert found["sha256"] == content_hash(model)
    assert found["precision"] is None
    assert found["runtime_version"]
    assert timing["runs"] >= 64
    assert len(timing["samples_ms"]) == 8
    assert 0 < timing["min_ms"] <= timing["p50"]["value"] <= timing["p90"]["value"]
    assert timing["p50"]["low"] <= timing["p50"]["value"] <= timing["p50"]["high"]
    assert (timing["p99_ms"] is None) == (timing["runs"] < 1000)
    assert timing["throttled"] is None
    assert {"cpu", "governor", "load"} <= set(record["before"])
    assert record["after"]


def test_the_text_names_what_could_not_be_read(model, capsys):
    code, out, _ = run(capsys, model, "--tier", "rapid")
    assert code == 0
    assert model.name in out
    assert "as it is" in out
    assert "measured by" in out


def test_a_long_session_has_its_windows(tmp_path, capsys):
    words = [small_onnx(tmp_path / "a.onnx"), "--tier", "sustained", "--json"]
    _, out, _ = run(capsys, *words)
    (found,) = json.loads(out)["models"]
    assert len(found["timing"]["windows"]) == 5
    assert found["timing"]["slowdown"] > 0
    assert found["timing"]["throttled"] in (True, False)


def test_a_network_is_measured_in_every_runtime(tmp_path, capsys):
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    torch.export.save(torch.export.export(net, (torch.randn(2, 3, 8, 8),)), tmp_path / "net.pt2")
    code, out, err = run(capsys, tmp_path / "net.pt2", "--tier", "rapid", "--json")
    assert code == 0, err
    found = [(m["runtime"], m["precision"]) for m in json.loads(out)["models"]]
    assert found == [("onnxruntime", "fp32"), ("litert", "fp32")]
    code, _, err = run(capsys, tmp_path / "net.pt2", "--tier", "rapid", "--precision", "int8")
    assert code == 2
    assert "--data" in err


@pytest.mark.parametrize("driver", ["runner", "python"])
def test_both_drivers_answer_the_same_fields(model, driver):
    file = benching._given(model, ThisMachine().runtimes)
    try:
        found = ThisMachine(driver=driver).bench([file], BenchSettings(tier=SHORT), Silent())
    except DeviceError as error:
        pytest.skip(error.message)
    timing = benching.timing(found.records, SHORT)
    assert found.driver.split()[0] == driver
    assert timing.runs >= 64
    assert (timing.settled is None) == (driver == "python")
    assert found.before["cpu"] == found.after["cpu"]


def test_python_refuses_a_cadence_it_cannot_keep(tmp_path):
    file = benching._given(small_onnx(tmp_path / "a.onnx"), ThisMachine().runtimes)
    settings = BenchSettings(tier=SHORT, cadence_hz=30.0)
    with pytest.raises(DeviceError, match="need the C runner"):
        ThisMachine(driver="python").bench([file], settings, Silent())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["gone.onnx"], 2, "no model at gone.onnx"),
        (["a.onnx", "--device", "fridge"], 2, "unknown device 'fridge'"),
        (["a.onnx", "--device", "host:other"], 6, "unknown device 'host:other'"),
        (["a.onnx", "--tier", "quickest"], 2, "invalid choice"),
        (["a.onnx", "--runtime", "tensorrt"], 2, "no runtime 'tensorrt'"),
        (["a.onnx", "--runtime", "litert"], 2, "no runtime chosen here runs a.onnx"),
        (["bad.onnx", "--tier", "rapid"], 6, "bad.onnx"),
        (["a.onnx", "--cadence-hz", "0"], 2, "--cadence-hz"),
    ],
)
def test_what_cannot_be_benched_is_one_line(words, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_onnx(Path("a.onnx"))
    Path("bad.onnx").write_bytes(b"not a model")
    found, out, err = run(capsys, *words)
    assert (found, out) == (code, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") <= 2


def test_an_unknown_tier_is_refused_by_the_function_too(tmp_path):
    with pytest.raises(InputError, match="unknown tier"):
        benching._tier("quickest")


def test_devices_says_what_is_there(capsys):
    assert cli.main(["devices", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "edgefit.devices/1"
    assert "host" in [device["device"] for device in record["devices"]]
    assert cli.main(["devices"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("device")
    assert "ssh://USER@HOST" in text
