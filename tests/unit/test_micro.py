"""TFLite Micro: the arena is what its interpreter needs, the outputs are LiteRT's, refusals are one line."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tflite_micro")
pytest.importorskip("ai_edge_litert")

from tests.contract.test_targets import small_tflite
from toolchain import cli
from toolchain.verify.micro import try_micro


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_tflite(tmp_path_factory.mktemp("micro") / "a.tflite").path


def allocates(model, arena):
    """Whether TFLite Micro opens the file in so many bytes; where it cannot, it may end its process."""
    script = (
        "import sys\nfrom tflite_micro import runtime\n"
        "runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(model), str(arena)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_arena_is_enough_and_not_much_more(model):
    found = try_micro(model)
    assert found.refused == ""
    assert found.difference < 1e-5
    assert allocates(model, found.arena_bytes)
    assert not allocates(model, found.arena_bytes * 9 // 10)


def test_the_header_and_the_record_say_it(model, tmp_path, capsys):
    assert cli.main(["embed", str(model), "--micro", "--out", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["micro"]["held"] is None
    assert f"#define A_ARENA {record['micro']['arena_bytes']}u" in (tmp_path / "a.h").read_text()
    assert cli.main(["embed", str(model), "--out", str(tmp_path)]) == 0
    assert "ARENA" not in (tmp_path / "a.h").read_text()


def test_a_budget_is_held_or_missed(model, tmp_path, capsys):
    need = try_micro(model).arena_bytes
    words = ["embed", str(model), "--out", str(tmp_path / "src"), "--budget-ram"]
    assert cli.main([*words, str(need - 1)]) == 1
    shown = capsys.readouterr()
    assert shown.err == f"error: a.tflite needs an arena of {need:,} bytes, {need - 1:,} are allowed\n"
    assert not (tmp_path / "src").exists()
    assert cli.main([*words, str(need)]) == 0
    assert f"arena {need:,} bytes, within the budget of {need:,}" in capsys.readouterr().out


def test_an_operator_that_it_does_not_have_is_named(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    litert_torch = pytest.importorskip("litert_torch")
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU()).eval()
    litert_torch.convert(network, (torch.randn(1, 4),)).export(str(tmp_path / "gelu.tflite"))
    capsys.readouterr()
    assert cli.main(["embed", str(tmp_path / "gelu.tflite"), "--micro", "--out", str(tmp_path / "src")]) == 3
    said = capsys.readouterr().err
    assert said == "error: TFLite Micro does not run gelu.tflite: it has no operator GELU\n"
    assert not (tmp_path / "src").exists()


@pytest.mark.slow
def test_compress_checks_the_arena_of_its_file(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    pytest.importorskip("litert_torch")
    from toolchain.program.capture import capture, save_program

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(576, 4)]
    network = torch.nn.Sequential(*layers).eval()
    save_program(capture(network, (torch.randn(2, 1, 8, 8),), name="net"), tmp_path / "net.pt2")
    words = [
        "compress",
        str(tmp_path / "net.pt2"),
        "--budget-params",
        "2000",
        "--formats",
        "tflite",
        "--quiet",
    ]
    checks = {}
    for limit in (10**6, 100):
        out = tmp_path / str(limit)
        code = cli.main([*words, "--budget-ram", str(limit), "--out", str(out)])
        record = json.loads((out / "report.json").read_text())
        (checks[limit],) = [check for check in record["checks"] if check["name"] == "TFLite Micro"]
        assert code == record["exit_code"] == (0 if limit > 100 else 1)
    assert {limit: check["status"] for limit, check in checks.items()} == {10**6: "pass", 100: "fail"}
    assert checks[100]["value"] == try_micro(tmp_path / "100" / "net.tflite").arena_bytes
    capsys.readouterr()
    assert cli.main([*words[:5], "onnx", "--budget-ram", "5", "--out", str(tmp_path / "never")]) == 2
    assert capsys.readouterr().err.startswith("error: --budget-ram is about TFLite files")


def test_other_files_are_refused(tmp_path, capsys):
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolchain.embed.read_interface", lambda _: None)
        assert cli.main(["embed", str(tmp_path / "a.onnx"), "--budget-ram", "5"]) == 2
    assert "TFLite Micro does not read a.onnx" in capsys.readouterr().err


def test_weights_of_int8_files_are_inside_the_flatbuffer(tmp_path):
    """Behind it TFLite Micro reads zeros, without a word; the quantizer puts them there from 256 kB on."""
    pytest.importorskip("ai_edge_quantizer")
    import torch
    from ai_edge_litert import schema_py_generated as schema

    from toolchain.assembly import build, material_of
    from toolchain.program.capture import capture
    from toolchain.quantize.tflite_int8 import QUANTIZER
    from toolchain.stages import Stages

    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(192, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256)]
    program = capture(torch.nn.Sequential(*layers).eval(), (torch.randn(2, 3, 8, 8),), name="net")
    source = build(program, [("tflite", "fp32")], Stages(root=tmp_path), material_of(program, None, "net"))
    samples = [(np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32),)]
    made = QUANTIZER.quantize(source["tflite", "fp32"], tmp_path / "net.int8.tflite", samples, {})
    file = made.path
    model = schema.Model.GetRootAs(file.read_bytes(), 0)
    assert file.stat().st_size > 256 * 1024
    assert all(model.Buffers(i).Offset() <= 1 for i in range(model.BuffersLength()))
    found = try_micro(file)
    assert found.refused == ""
    assert found.difference < 0.05
