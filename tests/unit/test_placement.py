"""Operators that XNNPACK leaves to LiteRT: told by the runtime, named, shown, and judged by the gate."""

import json
from pathlib import Path

import pytest

from targets._shared.driving import follow_job
from targets._shared.placement import operator_names, placements
from targets.host import Host
from tests.runners import binary, job_for, small_onnx
from toolchain import cli
from toolchain.artifacts import describe
from toolchain.contracts import Sampling, Silent
from toolchain.errors import DeviceError
from toolchain.placement import Away, Placement, newly_away
from toolchain.report.operators import fallbacks

ONCE = Sampling(trials=1, runs=1, warmup=0, trial_seconds=0.1, placement=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """Two networks as TFLite files: one that XNNPACK runs whole, one that also picks channels and a class."""
    litert_torch = pytest.importorskip("litert_torch")
    import torch
    from torch import nn

    class Picking(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body
            self.register_buffer("order", torch.tensor([3, 1, 2, 0, 7, 5, 6, 4]))

        def forward(self, x):
            y = self.body(x)
            picked = torch.index_select(y, 1, self.order)
            return picked + torch.argmax(picked, 1, keepdim=True).float()

    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(8, 8)).eval()
    folder = tmp_path_factory.mktemp("networks")
    paths = []
    for name, network in (("plain", body), ("picking", Picking(body).eval())):
        paths.append(folder / f"{name}.tflite")
        litert_torch.convert(network, (torch.randn(1, 3, 8, 8),)).export(str(paths[-1]))
    return paths[0], paths[1]


def tflite(path: Path):
    return describe(path, format_name="tflite", runtime="litert", precision="fp32")


def kinds_in(path: Path) -> list[str]:
    """The kind of each operator of a file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    codes = [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def test_what_the_interpreter_runs_itself_is_named(files):
    binary()
    found = [m.placement for m in Host().measure([tflite(path) for path in files], ONCE, Silent())]
    for placement, path in zip(found, files, strict=True):
        assert placement is not None
        assert placement.accelerator == "XNNPACK"
        assert placement.operators == len(kinds_in(path))
        known = list(zip(operator_names(path), kinds_in(path), strict=True))
        assert all((away.name, away.kind) in known and away.device == "CPU" for away in placement.away)
    whole, parted = found
    assert "CONV_2D" in kinds_in(files[0])
    assert whole.away == ()
    left = {away.kind for away in parted.away}
    assert "ARG_MAX" in left
    assert any(kind.startswith("GATHER") for kind in left)
    assert not left & {"CONV_2D", "FULLY_CONNECTED", "AVERAGE_POOL_2D"}
    assert newly_away(parted, whole) == parted.away
    assert newly_away(whole, parted) == newly_away(parted, parted) == ()


def test_it_is_told_only_where_it_is_asked_for_and_known(files, tmp_path, monkeypatch):
    artifact = tflite(files[1])
    (plain,) = Host().measure([artifact], Sampling(trials=1, runs=1, trial_seconds=0.1), Silent())
    assert plain.placement is None
    (python,) = Host(driver="python").measure([artifact], ONCE, Silent())
    assert python.placement is None
    onnx = describe(
        small_onnx(tmp_path / "a.onnx"), format_name="onnx", runtime="onnxruntime", precision="fp32"
    )
    (other,) = Host().measure([onnx], ONCE, Silent())
    assert other.placement is None


def test_timing_stands_without_it(files):
    """The job's records are complete with and without the question; samples are taken before it is asked."""
    program = binary()
    counts = []
    for placement in (0, 1):
        job = job_for("litert", files[1], trials=2, placement=placement)
        records = follow_job(program, job, silence_seconds=60, on_record=lambda _: None)
        counts.append([record["type"] for record in records])
    assert counts[0] == ["begin", "trial", "trial", "end"]
    assert counts[1] == ["begin", "trial", "trial", "placement", "end"]


@pytest.mark.slow
def test_bench_shows_them(files, capsys):
    binary()
    words = ["bench", str(files[1]), "--device", "host", "--tier", "rapid"]
    assert cli.main([*words, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["placement"]["operators"] == len(kinds_in(files[1]))
    assert {"name", "kind", "device"} == set(model["placement"]["away"][0])
    assert cli.main(words) == 0
    assert f"picking.tflite: {fallbacks(model['placement'])}" in capsys.readouterr().out


def test_the_gate_fails_where_more_of_them_leave(files, tmp_path, capsys):
    binary()
    plain, picking = map(str, files)
    out = tmp_path / "gate"
    rest = ["--max-fallbacks", "0", "--max-regression", "100000", "--out", str(out), "--quiet"]
    assert cli.main(["gate", picking, "--baseline", plain, *rest]) == 1
    assert "FAIL" in capsys.readouterr().out
    checks = {check["name"]: check for check in json.loads((out / "gate.json").read_text())["checks"]}
    check = checks["operators newly off the accelerator"]
    assert (check["verdict"], check["limit"], check["unit"]) == ("fail", 0, "operators")
    assert check["value"] >= 2
    assert "; new: " in check["detail"]
    assert "ARG_MAX" in check["detail"]
    for candidate, baseline in ((plain, picking), (picking, picking)):
        assert cli.main(["gate", candidate, "--baseline", baseline, *rest]) == 0
    assert "0 operators" in capsys.readouterr().out


def test_a_runtime_that_does_not_tell_cannot_be_gated(tmp_path, capsys):
    model = str(small_onnx(tmp_path / "a.onnx"))
    words = ["gate", model, "--baseline", model, "--max-fallbacks", "0", "--out", str(tmp_path / "gate")]
    assert cli.main([*words, "--seconds", "5", "--quiet"]) == 2
    assert "onnxruntime does not tell here which operators" in capsys.readouterr().err


def away(kind: str, *names: str) -> tuple[Away, ...]:
    return tuple(Away(name=name, kind=kind, device="CPU") for name in names)


def test_operators_are_compared_by_kind():
    old = Placement(accelerator="XNNPACK", operators=9, away=away("CAST", "a", "b"))
    renamed = Placement(accelerator="XNNPACK", operators=9, away=away("CAST", "c", "d"))
    assert newly_away(renamed, old) == ()
    more = Placement(accelerator="XNNPACK", operators=9, away=away("CAST", "a", "new", "b"))
    assert newly_away(more, old) == away("CAST", "new")
    other = Placement(accelerator="XNNPACK", operators=9, away=(*away("CAST", "a"), *away("GATHER", "g")))
    assert newly_away(other, old) == away("GATHER", "g")


def test_they_are_said_in_one_line():
    plain = {"accelerator": "XNNPACK", "operators": 66, "away": []}
    assert fallbacks(plain) == "all 66 operators ran on XNNPACK"
    many = [{"name": f"n{number}", "kind": "CAST", "device": "CPU"} for number in range(5)]
    other = {"name": "", "kind": "GATHER", "device": "CPU"}
    assert fallbacks(plain | {"away": [*many, other]}) == (
        "6 of 66 operators left XNNPACK: 5 CAST (n0, n1, n2 and 2 more), 1 GATHER (unnamed)"
    )


def test_what_cannot_be_read_is_an_error(files):
    good = {"type": "placement", "model": 0, "accelerator": "XNNPACK", "nodes": [[10**6, "DELEGATE"]]}
    (found,) = placements([good], [files[0]])
    assert found is not None
    assert found.away == ()
    for bad in ({"nodes": [["x", "CAST"]]}, {"nodes": 3}):
        with pytest.raises(DeviceError, match=r"operators of plain\.tflite"):
            placements([good | bad], [files[0]])
    with pytest.raises(DeviceError, match="operators of"):
        placements(
            [{"type": "placement", "model": 0, "accelerator": "Neural Engine", "away": [{}]}], [files[0]]
        )
