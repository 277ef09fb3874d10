"""The C runner: what it measures is what was asked."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets._shared import runner, worker
from targets._shared.runner import Job, Model
from tests.runners import (
    BOTH,
    binary,
    job_for,
    library,
    records,
    small,
    small_onnx,
    small_tflite,
    start,
    trials,
)
from toolchain.errors import DeviceError


def test_its_version_is_the_hash_of_its_sources() -> None:
    said = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
    assert said == f"edgefit-runner {runner.version()}\n"


@pytest.mark.parametrize("arch", runner.ARCHITECTURES)
def test_it_builds_for_every_architecture(arch: str) -> None:
    header = binary(arch).read_bytes()[:20]
    machine = {"x86_64": 62, "aarch64": 183, "armv7": 40}[arch]  # ELF e_machine
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == machine


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEFIT_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None if name != "make" else "make")
    with pytest.raises(DeviceError, match="there is no") as caught:
        runner.runner("aarch64")
    assert caught.value.hint.startswith("apt-get install gcc")
    with pytest.raises(DeviceError, match="no runner for mips"):
        runner.runner("mips")
    assert list(tmp_path.glob("runner/*")) == []


@BOTH
def test_the_self_test_loads_the_library_and_runs_the_model(runtime: str, tmp_path: Path) -> None:
    (tmp_path / "job").write_text(job_for(runtime, small(runtime, tmp_path)).text())
    done = subprocess.run(
        [binary(), "--self-test", tmp_path / "job"], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, found["status"], found["error"]) == (0, "passed", None)
    assert 0 < found["overhead_ns"] < 5000
    (tmp_path / "job").write_text(job_for(runtime, tmp_path / "gone").text())
    done = subprocess.run(
        [binary(), "--self-test", tmp_path / "job"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "failed"


@BOTH
def test_outputs_are_those_of_python_bit_for_bit(runtime: str, tmp_path: Path) -> None:
    model = small(runtime, tmp_path)
    rng = np.random.default_rng(0)
    if runtime == "onnxruntime":
        import onnxruntime

        x = rng.standard_normal((1, 3, 8, 8), dtype=np.float32)
        (expected,) = onnxruntime.InferenceSession(str(model)).run(None, {"x": x})
    else:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(model), num_threads=1)
        interpreter.allocate_tensors()
        (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        x = rng.standard_normal(source["shape"], dtype=np.float32)
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        expected = interpreter.get_tensor(result["index"])
    x.tofile(tmp_path / "x")
    job = job_for(runtime, model, inputs=str(tmp_path / "x"), outputs=str(tmp_path / "y"))
    assert start(job, tmp_path).returncode == 0
    assert np.array_equal(np.fromfile(tmp_path / "y", np.float32), expected.ravel())


@pytest.mark.parametrize(
    "elements", ["FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL"]
)
def test_inputs_of_every_type_are_made(elements: str, tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx", elements=elements)
    done = start(job_for("onnxruntime", model, outputs=str(tmp_path / "y")), tmp_path)
    assert done.returncode == 0, done.stderr
    result = np.fromfile(tmp_path / "y", np.float32)
    assert result.size == 4 * 6 * 6
    assert np.isfinite(result).all()
    assert result.max() > 0


def test_a_dynamic_batch_of_tflite_is_one_sample(tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    fixed = small_tflite(tmp_path / "fixed.tflite")
    model = schema.ModelT.InitFromPackedBuf(fixed.read_bytes(), 0)
    graph = model.subgraphs[0]
    for index in (*graph.inputs, *graph.outputs):
        shape = graph.tensors[index].shape
        graph.tensors[index].shapeSignature = np.array([-1, *shape[1:]], np.int32)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "dynamic.tflite").write_bytes(builder.Output())
    found = []
    for name in ("fixed", "dynamic"):
        job = job_for("litert", tmp_path / f"{name}.tflite", outputs=str(tmp_path / "y"))
        assert start(job, tmp_path).returncode == 0
        found.append((tmp_path / "y").read_bytes())
    assert found[0] == found[1]


def test_a_complete_answer_has_conditions_and_every_trial(tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    begin, *middle, end = records(start(job_for("onnxruntime", model, trials=3), tmp_path).stdout)
    assert (begin["type"], end["type"], end["records"]) == ("begin", "end", 3)
    assert begin["libraries"] == {"onnxruntime": library("onnxruntime").version}
    for conditions in (begin["conditions"], end["conditions"]):
        assert conditions["machine"] == os.uname().machine
        assert conditions["affinity"] == [max(os.sched_getaffinity(0))]
        assert {"governor", "frequency_mhz", "temperatures", "battery_percent", "charging"} <= set(conditions)
    for number, record in enumerate(middle):
        assert (record["trial"], record["model"], record["window"]) == (number, 0, 0)
        assert record["runs"] == len(record["wall_ns"]) == len(record["cpu_ns"]) == 5
        assert record["min_ns"] == min(record["wall_ns"]) > 0
        assert record["load_ns"] > 0 < record["first_ns"]


def test_trials_of_several_models_take_turns_as_in_python(tmp_path: Path) -> None:
    paths = [
        small_onnx(tmp_path / "a.onnx"),
        small_onnx(tmp_path / "b.onnx"),
        small_tflite(tmp_path / "c.tflite"),
    ]
    models = tuple(
        Model(runtime="litert" if p.suffix == ".tflite" else "onnxruntime", path=str(p)) for p in paths
    )
    both = (library("onnxruntime"), library("litert"))
    job = Job(libraries=both, models=models, trials=4, most=3, least=1, warmup=0)
    found = [(r["trial"], r["model"]) for r in trials(start(job, tmp_path).stdout)]
    assert found == [(t, m) for t in range(4) for m in worker.order(3, t)]


def test_models_open_at_once_share_a_window_out_in_turns(tmp_path: Path) -> None:
    model = str(small_onnx(tmp_path / "a.onnx"))
    one = Model(runtime="onnxruntime", path=model)
    job = Job(libraries=(library("onnxruntime"),), models=(one, one), trials=3, warmup=0, turns=4)
    for wanted, runs in ((replace(job, most=10), 10), (replace(job, least=7, seconds=0.0), 7)):
        answer = start(wanted, tmp_path)
        assert answer.returncode == 0, answer.stderr
        found = trials(answer.stdout)
        assert [(r["trial"], r["model"]) for r in found] == [
            (t, m) for t in range(3) for m in worker.order(2, t)
        ]
        assert {r["runs"] for r in found} == {runs}
        assert all(sum(r["wall_ns"]) <= r["window_ns"] for r in found)


def test_a_window_has_its_runs_and_its_time(tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    by_runs = job_for("onnxruntime", model, least=40, most=0, seconds=0.0)
    (record,) = trials(start(by_runs, tmp_path).stdout)
    assert record["runs"] == 40
    by_time = job_for("onnxruntime", model, least=1, most=0, seconds=0.2, windows=3)
    found = trials(start(by_time, tmp_path).stdout)
    assert [r["window"] for r in found] == [0, 1, 2]
    assert all(sum(r["wall_ns"]) * r["stride"] < 0.4e9 and r["runs"] > 40 for r in found)
    assert "load_ns" in found[0]
    assert "load_ns" not in found[1]


def test_many_runs_are_kept_evenly_and_counted_all(tmp_path: Path) -> None:
    """More than 65,536 runs: every other sample goes, and the record says so."""
    model = small_onnx(tmp_path / "a.onnx", width=1)
    job = job_for("onnxruntime", model, least=70000, most=70000, seconds=60.0)
    (record,) = trials(start(job, tmp_path).stdout)
    assert (record["runs"], record["stride"], len(record["wall_ns"])) == (70000, 2, 35000)
    assert record["min_ns"] <= min(record["wall_ns"])


def test_a_cadence_is_kept(tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    before = time.monotonic()
    (record,) = trials(
        start(job_for("onnxruntime", model, least=10, most=10, cadence_hz=20.0), tmp_path).stdout
    )
    assert time.monotonic() - before > 9 / 20
    assert record["runs"] == 10
    assert 0 <= record["late"] <= 10


def test_warm_up_ends_when_the_median_settles_or_time_is_up(tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    (record,) = trials(start(job_for("onnxruntime", model, warmup=50, warmup_seconds=20.0), tmp_path).stdout)
    assert record["settled"]
    assert record["warmup"] % 50 == 0
    assert record["warmup"] >= 100
    (record,) = trials(start(job_for("onnxruntime", model, warmup=0), tmp_path).stdout)
    assert (record["warmup"], record["settled"]) == (0, False)


def test_without_arguments_it_says_how_it_is_used() -> None:
    done = subprocess.run([binary()], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: edgefit-runner JOB")


def test_onnxruntime_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    """Its builds for Linux keep an identifier and events there, and send them, unless told not to."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_", "CI"))}
    job = job_for("onnxruntime", small_onnx(tmp_path / "a.onnx"))
    done = start(job, tmp_path, env=kept | {"HOME": str(home)})
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


def test_a_process_of_edgefit_tells_onnxruntime_to_send_nothing() -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    show = "import os, toolchain; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", show], capture_output=True, text=True, check=True, env=kept | given
        )
        assert done.stdout.strip() == expected
