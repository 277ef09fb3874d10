"""`--store` through the command line: files that unpack to the bit, few values in each, what is refused."""

import json

import numpy as np
import pytest
from interrupting import part_of

from toolchain import cli
from toolchain.report.record import read_record
from toolchain.verify.mil.execution import interpreter


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """A part of the digits: short epochs."""
    return part_of(digits, 320, tmp_path_factory.mktemp("few"))


def run(few, out, *more):
    model, data = few
    fixed = ("--runtime", "onnxruntime", "--store-epochs", "1", "--quiet")
    return cli.compress([*map(str, [model, "--data", data, "--out", out, *fixed, *more])])


def weights_of(path):
    """The large initializers of an ONNX file."""
    import onnx

    arrays = [onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    return [a for a in arrays if a.ndim > 1 and a.size >= 64]


def test_palettes_in_every_format_and_files_that_unpack_to_the_bit(few, tmp_path, capfd):
    out = tmp_path / "out"
    assert run(few, out, "--store", "palette:3", "--sparsity", "0.6") == 0
    shown, said = capfd.readouterr()
    assert said == ""
    assert "WEIGHTS STORED" in shown
    assert "palette:3, 60.0 % of the weights zero" in shown
    record = read_record(out / "report.json")
    storage = record["storage"]
    assert record["result"]["cost"]["macs"] == record["baseline"]["cost"]["macs"], "nothing is pruned"
    assert storage["zeros"] == pytest.approx(0.6, abs=0.001)
    assert storage["metric_after"]["value"] > storage["metric_before"]["value"] - 10
    assert {file["path"] for file in storage["files"]} == {"digits.onnx.stored", "digits.tflite.stored"}
    for file in storage["files"]:
        stored, model = out / file["path"], out / file["restores"]
        assert file["size_bytes"] == stored.stat().st_size < model.stat().st_size / 10
        assert cli.main(["restore", str(stored), "--out", str(tmp_path / "again")]) == 0
        assert (tmp_path / "again").read_bytes() == model.read_bytes()
        assert {row["values"] for row in file["layers"]} <= set(range(2, 9))
        assert sum(row["weights"] for row in file["layers"]) > 0.95 * record["result"]["cost"]["params"]
    assert all(len(np.unique(w)) <= 8 for w in weights_of(out / "digits.onnx"))
    assert "Packed files" in (out / "report.md").read_text()
    assert "digits.onnx.stored" in (out / "report.html").read_text()

    package = out / "digits.mlpackage"
    size = sum(f.stat().st_size for f in package.rglob("*") if f.is_file())
    assert size < (out / "digits.onnx").stat().st_size / 5, "3 bits are kept in 4 and fp16 would be a half"
    opened = interpreter(package)
    large = [w.float().numpy() for w in opened.weights() if w.numel() >= 512]
    assert large
    assert all(len(np.unique(w)) <= 8 for w in large)
    checks = {(c["name"], c["subject"]): c["status"] for c in record["checks"]}
    assert checks["Core ML weights", "digits.mlpackage"] == "pass"
    assert checks["unpacks to the same file", "digits.onnx.stored"] == "pass"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ternary", "binary", "fixed:2.6"])
def test_other_forms_with_a_budget(form, few, tmp_path, capfd):
    out = tmp_path / "out"
    asked = ("--store", form, "--budget-macs", "4M", "--formats", "onnx", "--epochs", "1")
    assert run(few, out, *asked, "--criterion", "magnitude", "--rounding", "stochastic") == 0
    assert capfd.readouterr().err == ""
    record = read_record(out / "report.json")
    assert record["verdict"] == "held"
    (file,) = record["storage"]["files"]
    assert cli.main(["restore", str(out / file["path"]), "--json", "--out", str(tmp_path / "again")]) == 0
    assert json.loads(capfd.readouterr().out)["bytes"] == file["file_bytes"]
    assert (tmp_path / "again").read_bytes() == (out / "digits.onnx").read_bytes()
    inner = [w for w in weights_of(out / "digits.onnx") if w.ndim == 4 and w.shape[1] > 1]
    if form == "fixed:2.6":
        assert all((w * 64 == np.round(w * 64)).all() and w.min() >= -2 and w.max() < 2 for w in inner)
    else:
        most = {"ternary": 3, "binary": 2}[form]
        assert all(len(np.unique(channel)) <= most for w in inner for channel in w)


def test_without_data_weights_are_stored_untrained(few, tmp_path, capfd):
    out = tmp_path / "out"
    asked = [few[0], "--store", "palette:6", "--formats", "onnx", "--runtime", "onnxruntime", "--out", out]
    assert cli.compress([*map(str, asked), "--quiet"]) == 0
    record = read_record(out / "report.json")
    assert any("not fine-tuned" in note for note in record["notes"])
    assert record["storage"]["metric_after"] is None
    assert capfd.readouterr().err == ""


def test_for_a_device_that_is_not_at_hand_palettes_are_delivered_as_they_are(few, tmp_path, capfd):
    out = tmp_path / "out"
    asked = [few[0], "--store", "palette:4", "--target", "iphone", "--formats", "coreml", "--out", out]
    assert cli.compress([*map(str, asked), "--quiet"]) == 0
    assert {path.name for path in out.glob("*.mlpackage")} == {"digits.mlpackage"}
    assert read_record(out / "report.json")["storage"]["files"] == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--store", "palette"], "--store palette:BITS"),
        (["--store", "palette:9"], "1 to 8 bits"),
        (["--store", "fixed:8"], "IL.FL"),
        (["--store", "huffman"], "unknown form of storage 'huffman'"),
        (["--store", "ternary:2"], "takes nothing"),
        (["--store", "plain"], "saves nothing"),
        (["--store", "binary", "--sparsity", "0.5"], "do not go together"),
        (["--sparsity", "1"], "leaves no weight"),
        (["--sparsity", "0.5", "--sparsity-schedule", "apg"], "did you mean 'agp'"),
        (["--store", "palette:4", "--precision", "int8"], "float files"),
        (["--store", "palette:4", "--data", "DATA", "--allow-resize"], "do not go together"),
    ],
)
def test_what_cannot_be_stored_is_refused(few, more, said, tmp_path, capfd):
    model, data = few
    words = [str(data) if word == "DATA" else word for word in more]
    assert cli.compress([str(model), *words, "--out", str(tmp_path / "result")]) == 2
    assert said in "".join(capfd.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_stored_file_is_refused(few, tmp_path, capfd):
    assert cli.main(["restore", str(few[0]), "--out", str(tmp_path / "x")]) == 2
    assert "is not a stored model" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
