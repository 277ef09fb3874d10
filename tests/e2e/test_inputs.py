"""`--method data` through the command line: useless inputs are found, leave the files, are written down."""

import json

import numpy as np
import pytest
import torch
from interrupting import interrupted
from torch import nn
from torch.nn.functional import cross_entropy

from toolchain import cli
from toolchain.program.capture import capture, save_program
from toolchain.report.record import read_record

FIXED = ("--precision", "fp32", "--runtime", "onnxruntime", "--batch-size", "32", "--method", "data")


def saved(folder, name, model, x, y):
    """The network trained on the first two thirds, and its data."""
    torch.manual_seed(0)
    optimizer, part = torch.optim.Adam(model.parameters(), lr=0.01), len(x) * 2 // 3
    for _ in range(120):
        chosen = torch.randint(0, part, (64,))
        optimizer.zero_grad()
        cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    model.eval()
    save_program(capture(model, (x[:2],), name=name), folder / f"{name}.pt2")
    arrays = {"x": x[:part], "y": y[:part], "x_val": x[part:], "y_val": y[part:]}
    np.savez(folder / f"{name}.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / f"{name}.pt2", folder / f"{name}.npz"


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Twelve features, of which 0, 2 and 4 say the class and the others are noise."""
    torch.manual_seed(0)
    y = torch.arange(900) % 3
    x = torch.randn(900, 12)
    x[torch.arange(900), 2 * y] += 2.5
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    return saved(tmp_path_factory.mktemp("vectors"), "vectors", model, x, y)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images whose middle says the class in channels 0 and 2; channel 1 is constant, the border noise."""
    torch.manual_seed(0)
    y = torch.arange(900) % 3
    x = 0.7 * torch.randn(900, 3, 16, 16)
    x[:, 1] = 0.5
    for label, channel, bright in ((0, 0, 1.0), (1, 2, 1.0), (2, 0, -1.0)):
        x[y == label, channel, 4:12, 4:12] += bright
    model = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 12, 3, padding=1, stride=2), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3)),
    )
    return saved(tmp_path_factory.mktemp("images"), "images", model, x, y)


def words(given, out, *more):
    return [*map(str, [given[0], "--data", given[1], *FIXED, "--out", out, *more])]


VECTORS = ("--budget-macs", "500", "--input-price", "2", "--method-epochs", "12", "--epochs", "1")


def test_features_that_say_nothing_leave_the_network(vectors, tmp_path, capfd):
    out = tmp_path / "small"
    assert cli.compress([*words(vectors, out, *VECTORS, "--formats", "onnx"), "--quiet"]) == 0
    assert capfd.readouterr().err == ""
    record = read_record(out / "report.json")
    view = record["plan"]["inputs"]
    assert {0, 2, 4} <= set(view["kept"])
    assert len(view["kept"]) <= 6
    assert record["verdict"] == "held"
    assert record["result"]["metric"]["value"] > record["baseline"]["metric"]["value"] - 2
    assert any(f"handed {view['text']}" in note for note in record["notes"])
    assert min(view["nats"][i] for i in (0, 2, 4)) > max(
        view["nats"][i] for i in range(12) if i not in view["kept"]
    )

    import onnx

    model = onnx.load(str(out / "vectors.onnx"))
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_value == len(view["kept"])
    written = {entry.key: entry.value for entry in model.metadata_props}
    told = json.loads(written["edgefit.input"])
    assert told["kept"] == view["kept"]
    assert told["shape"] == [12]
    assert told["text"] == view["text"]
    assert "<svg" in (out / "inputs.svg").read_text()
    assert "What of the input is kept" in (out / "report.html").read_text()
    assert view["text"] in (out / "report.md").read_text()


@pytest.mark.slow
def test_a_constant_channel_and_a_noisy_border_leave_the_network(images, tmp_path, capfd):
    out = tmp_path / "small"
    asked = ("--budget-macs", "40k", "--method-epochs", "12", "--epochs", "2", "--input-price", "0.5")
    assert cli.compress([*words(images, out, *asked), "--quiet"]) == 0
    assert capfd.readouterr().err == ""
    record = read_record(out / "report.json")
    view = record["plan"]["inputs"]
    assert view["kept"] == [0, 2]
    top, left, height, width = view["crop"]
    assert 2 <= top <= 4
    assert 2 <= left <= 4
    assert 8 <= height <= 12
    assert 8 <= width <= 12
    assert record["verdict"] == "held"
    assert record["result"]["metric"]["value"] > 95
    assert {check["status"] for check in record["checks"]} <= {"pass", "not run"}
    assert {a["format"] for a in record["result"]["artifacts"]} == {"onnx", "tflite", "coreml"}

    import onnxruntime

    session = onnxruntime.InferenceSession(str(out / "images.onnx"))
    assert session.get_inputs()[0].shape[1:] == [2, height, width]


@pytest.mark.slow
def test_interrupted_while_it_learns_it_resumes_and_its_plan_replays(vectors, tmp_path, capfd):
    out = tmp_path / "small"
    work = out.with_name("small.work")
    asked = words(vectors, out, *VECTORS, "--formats", "onnx")
    ready = lambda: any(work.glob("learning-*/checkpoint.pt"))  # noqa: E731
    code, text, progress = interrupted(["compress", *asked], tmp_path, ready, every=0.02)
    assert (code, text) == (130, ""), progress
    assert cli.compress([*asked, "--resume", "--quiet"]) == 0
    capfd.readouterr()
    resumed = read_record(out / "report.json")
    assert cli.compress([*words(vectors, tmp_path / "whole", *VECTORS, "--formats", "onnx"), "--quiet"]) == 0
    whole = read_record(tmp_path / "whole" / "report.json")
    assert resumed["plan"]["inputs"] == whole["plan"]["inputs"]
    assert resumed["result"]["cost"] == whole["result"]["cost"]

    again = [*map(str, [vectors[0], "--data", vectors[1], "--apply", out / "plan.json", "--epochs", "1"])]
    again += ["--formats", "onnx", "--runtime", "onnxruntime", "--precision", "fp32", "--quiet"]
    assert cli.main(["plan", *again, "--out", str(tmp_path / "again")]) == 0
    replayed = read_record(tmp_path / "again" / "report.json")
    assert replayed["plan"]["inputs"] == whole["plan"]["inputs"]
    assert replayed["result"]["cost"] == whole["result"]["cost"]


def test_what_makes_no_sense_is_refused(vectors, tmp_path, capfd):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(12, 12)

        def forward(self, a, b):
            return self.layer(a) + b

    pair = (torch.randn(2, 12), torch.randn(2, 12))
    save_program(capture(Sum(), pair, name="pair"), tmp_path / "pair.pt2")
    tokens = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    save_program(capture(tokens, (torch.randint(0, 9, (2, 5)),), name="tokens"), tmp_path / "tokens.pt2")
    ids = {"x": np.zeros((40, 5), np.int64), "y": np.arange(40) % 3}
    np.savez(tmp_path / "tokens.npz", **ids)
    before = set(tmp_path.iterdir())
    for model, data, said in (
        (vectors[0], None, "there is nothing to learn from"),
        (tmp_path / "tokens.pt2", tmp_path / "tokens.npz", "the network takes input int64"),
        (tmp_path / "pair.pt2", vectors[1], "the network has 2 inputs"),
    ):
        asked = [model, "--budget-macs", "300", "--method", "data", "--out", tmp_path / "out"]
        asked += [] if data is None else ["--data", data]
        assert cli.compress([*map(str, asked), "--quiet"]) in (2, 3)
        error = capfd.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert set(tmp_path.iterdir()) == before
