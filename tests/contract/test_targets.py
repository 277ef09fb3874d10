"""Every target, found by registry: it says what it is, runs known formats, and connects or says why not."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets._shared import engines, process, worker
from targets._shared.driving import driver_of
from targets._shared.process import converse
from targets.host import TARGET, Host
from tests.runners import CONVOLUTION
from toolchain import registry
from toolchain.contracts import Sampling, Silent, Target
from toolchain.errors import DeviceError
from toolchain.values import Artifact, Layer

FORMATS = {"onnx", "tflite", "coreml"}
FAST = Sampling(trials=3, runs=5, warmup=2, trial_seconds=0.2)


@pytest.mark.parametrize("name", registry.names("targets"))
def test_every_target_keeps_the_contract(name: str) -> None:
    target: Target = registry.find("targets", "TARGET", name)
    assert target.name == name
    assert target.summary
    assert target.runtimes
    for runtime in target.runtimes:
        assert runtime.format in FORMATS
        assert runtime.precisions
        assert runtime.align >= 1
    assert len({runtime.name for runtime in target.runtimes}) == len(target.runtimes)
    assert set(target.routes) <= set(registry.names("targets._routes"))
    try:
        device = target.connect()
    except DeviceError as error:
        assert error.hint  # noqa: PT017 - a target that is not there is allowed, if it says what to do
        return
    conditions = device.conditions(target.runtimes[0], 1)
    assert conditions.device == name
    assert conditions.runtime == target.runtimes[0].name
    assert conditions.frequency_mhz is None or conditions.frequency_mhz > 0


def small_onnx(path: Path, width: int = 4) -> Artifact:
    """A convolution and a ReLU with a dynamic batch."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    weight = np.ones((width, 3, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, str(path))
    return artifact(path, "onnx", "onnxruntime")


def artifact(path: Path, form: str, runtime: str) -> Artifact:
    size = path.stat().st_size if path.exists() else 0
    return Artifact(
        format=form, runtime=runtime, precision="fp32", path=path, size_bytes=size, sha256=path.name
    )


def small_tflite(path: Path) -> Artifact:
    pytest.importorskip("ai_edge_litert")
    from targets._shared import probes_tflite

    probes_tflite.write(CONVOLUTION, "fp32", path)
    return artifact(path, "tflite", "litert")


DRIVERS = pytest.mark.parametrize("driver", ["runner", "python"])


def host(driver: str) -> Host:
    """This machine with one of its two drivers, or a skip with the reason why that one is not there."""
    try:
        driver_of(("onnxruntime", "litert"), driver)
    except DeviceError as error:
        pytest.skip(error.message)
    return Host(driver=driver)


@DRIVERS
def test_both_runtimes_are_measured_in_one_interleaved_process(tmp_path: Path, driver: str) -> None:
    models = [small_onnx(tmp_path / "a.onnx"), small_tflite(tmp_path / "b.tflite")]
    seen: list[tuple[int, int]] = []

    class Steps(Silent):
        def step(self, done: int, total: int, note: str = "") -> None:
            seen.append((done, total))

    found = host(driver).measure(models, FAST, Steps())
    assert seen == [(k, 6) for k in range(1, 7)]
    for model, measurement in zip(models, found, strict=True):
        assert measurement.sha256 == model.sha256
        assert measurement.runtime == measurement.conditions.runtime == model.runtime
        assert [len(trial) for trial in measurement.samples_ms] == [5, 5, 5]
        assert all(ms > 0 for trial in measurement.samples_ms for ms in trial)
        assert measurement.p50_low_ms <= measurement.p50_ms <= measurement.p50_high_ms
        assert measurement.cpu_p50_ms is not None
        assert measurement.load_ms is not None
        assert measurement.first_ms is not None
        assert re.match(r"\d+\.\d+", measurement.conditions.runtime_version)
        assert measurement.conditions.driver.split()[0] == driver
        if hasattr(os, "sched_setaffinity"):
            assert measurement.conditions.affinity == (max(os.sched_getaffinity(0)),)


def test_nothing_to_measure_is_no_measurement() -> None:
    assert Host().measure((), FAST, Silent()) == ()


@DRIVERS
@pytest.mark.parametrize(("name", "runtime"), [("a.onnx", "onnxruntime"), ("a.tflite", "litert")])
@pytest.mark.parametrize("content", [b"", b"not a model at all", bytes(range(256)) * 40])
def test_a_corrupt_model_is_one_clear_line(
    tmp_path: Path, name: str, runtime: str, content: bytes, driver: str
) -> None:
    pytest.importorskip("onnxruntime" if runtime == "onnxruntime" else "ai_edge_litert")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeviceError, match=rf"{name}") as caught:
        host(driver).measure([artifact(tmp_path / name, name[2:], runtime)], FAST, Silent())
    assert "\n" not in str(caught.value)


def test_python_measures_where_the_runner_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    monkeypatch.setattr("targets._shared.driving.usable", lambda runtimes: None)
    (found,) = Host().measure([model], FAST, Silent())
    assert found.conditions.driver == "python"
    with pytest.raises(DeviceError, match="runner cannot be had") as caught:
        Host(driver="runner").measure([model], FAST, Silent())
    assert "doctor" in caught.value.hint


def test_a_truncated_model_is_an_error(tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx", width=64)
    model.path.write_bytes(model.path.read_bytes()[:300])
    with pytest.raises(DeviceError, match=r"a\.onnx"):
        Host().measure([model], FAST, Silent())


def test_a_missing_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"no file to measure at .*gone\.onnx"):
        Host().measure([artifact(tmp_path / "gone.onnx", "onnx", "onnxruntime")], FAST, Silent())


def test_an_unknown_runtime_is_an_error(tmp_path: Path) -> None:
    model = replace(small_onnx(tmp_path / "a.onnx"), runtime="tensorrt")
    with pytest.raises(DeviceError, match="tensorrt") as caught:
        Host().measure([model], FAST, Silent())
    assert "onnxruntime" in caught.value.hint


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    monkeypatch.setattr("targets.host.importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="onnxruntime") as caught:
        Host().measure([model], FAST, Silent())
    assert caught.value.hint == "pip install 'edgefit[onnx]'"


def fake_worker(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> str:
    """A module that runs in place of the worker."""
    (folder / "fake_worker.py").write_text("import json, os, signal, sys, time\n" + textwrap.dedent(body))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "fake_worker"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ('print(json.dumps({"type": "begin"})); sys.exit(0)', "middle of its answer"),
        ('print(json.dumps({"type": "begin"})[:-3]); sys.exit(0)', "unreadable"),
        ('print("[1, 2]")', "unreadable"),
        ('print(json.dumps({"type": "end", "records": 3}))', "middle of its answer"),
        ('sys.stderr.write("cannot go on\\n"); sys.exit(3)', "status 3: cannot go on"),
        ("", "middle of its answer"),
        ('print(json.dumps({"type": "error", "message": "bad file"})); sys.exit(1)', "bad file"),
        (
            'print(json.dumps({"type": "begin"})); print(json.dumps({"type": "end", "records": 0}),'
            " flush=True); os.kill(os.getpid(), signal.SIGSEGV)",
            "SIGSEGV",
        ),
    ],
)
def test_only_a_complete_answer_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: str
) -> None:
    module = fake_worker(tmp_path, monkeypatch, body)
    with pytest.raises(DeviceError, match=expected):
        converse({}, silence_seconds=20, module=module)


def test_a_silent_process_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "pid"
    body = f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    module = fake_worker(tmp_path, monkeypatch, body)
    with pytest.raises(DeviceError, match="said nothing for 2 s"):
        converse({}, silence_seconds=2, module=module)
    assert not alive(int(mark.read_text()))


@DRIVERS
def test_interrupting_leaves_nothing_running(tmp_path: Path, driver: str) -> None:
    """Ctrl-C in the middle of a measurement: the measuring process ends with its parent."""
    model, _ = small_onnx(tmp_path / "a.onnx"), host(driver)
    script = f"""
        from pathlib import Path
        from targets._shared import process
        from targets.host import Host
        from toolchain.contracts import Sampling, Silent
        from toolchain.values import Artifact
        listen = process._listen
        def spy(process_, *rest):
            print(process_.pid, flush=True)
            return listen(process_, *rest)
        process._listen = spy
        model = Artifact(format="onnx", runtime="onnxruntime", precision="fp32",
                         path=Path({str(model.path)!r}), size_bytes=1, sha256="a")
        Host(driver={driver!r}).measure([model], Sampling(trials=100000, runs=50), Silent())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=process._environment(),
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert not alive(child)


def alive(pid: int) -> bool:
    """Whether the process runs (an ended one that nobody has collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_the_order_of_models_is_fair() -> None:
    for models in (1, 2, 3, 5):
        orders = [worker.order(models, trial) for trial in range(2 * models)]
        assert all(sorted(order) == list(range(models)) for order in orders)
        places = [[order.index(k) for order in orders] for k in range(models)]
        assert len({sum(place) for place in places}) == 1


def test_models_open_at_once_run_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    class Engine:
        version = "1"

        def __init__(self, path: str) -> None:
            self.run = lambda number: ran.append(f"{path}{number}")

    monkeypatch.setattr(engines, "load_library", lambda runtime: None)
    monkeypatch.setitem(engines.OPENERS, "fake", lambda path, threads, seed: Engine(path))
    asked = {"trials": 2, "windows": 1, "turns": 3, "least": 1, "most": 5, "seconds": 9, "threads": 2}
    asked |= {"warmup": 0, "warmup_seconds": 0.0, "models": [{"runtime": "fake", "path": p} for p in "ab"]}
    found = [(r["trial"], r["model"], r["runs"]) for r in worker._trials(asked)]
    assert found == [(0, 0, 5), (0, 1, 5), (1, 1, 5), (1, 0, 5)]
    assert ran[:2] == ["a0", "b0"]  # the first inference of each
    cold = ["a0", "a1"], ["b0", "b1"]
    assert ran[2:10] == [*cold[0], "a0", "a1", *cold[1], "b0", "b1"]
    assert ran[10:18] == [*cold[1], "b2", "b3", *cold[0], "a2", "a3"]
    assert ran[18:24] == [*cold[0], "a4", *cold[1], "b4"]


def test_the_measuring_process_never_imports_torch_or_the_toolchain(tmp_path: Path) -> None:
    model = small_onnx(tmp_path / "a.onnx")
    script = (
        "import sys; from targets._shared import engines, probing, worker\n"
        f"engines.open_onnxruntime({str(model.path)!r}, 1, 0).run(0)\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'toolchain', 'onnx', 'jax'}))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=process._environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("runtime", TARGET.runtimes, ids=lambda r: r.name)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_kind_of_layer_can_be_timed_alone(runtime, precision) -> None:
    pytest.importorskip("onnxruntime" if runtime.name == "onnxruntime" else "ai_edge_litert")
    pytest.importorskip("onnx")
    layers = [
        CONVOLUTION,
        replace(CONVOLUTION, out_channels=8, groups=8),
        replace(CONVOLUTION, out_channels=16, groups=8),
        replace(CONVOLUTION, groups=2),
        replace(
            CONVOLUTION,
            kernel=(1, 1),
            padding=(0, 0),
            stride=(1, 1),
            output_size=(12, 12),
            bias=False,
        ),
        replace(
            CONVOLUTION,
            kernel=(3,),
            padding=(2,),
            stride=(1,),
            dilation=(2,),
            input_size=(20,),
            output_size=(20,),
        ),
        Layer(node="fc", kind="linear", weight="fc.weight", in_channels=64, out_channels=10),
        Layer(node="mlp", kind="linear", weight="m.weight", in_channels=64, out_channels=128, tokens=50),
    ]
    times = Host().probe(runtime, precision, layers, threads=1, progress=Silent())
    assert len(times) == len(layers)
    assert all(ms is not None and 0 <= ms < 50 for ms in times)
    assert sum(ms > 0 for ms in times if ms is not None) >= len(layers) - 1


def test_a_layer_that_cannot_be_written_is_none_not_a_number() -> None:
    cube = replace(
        CONVOLUTION,
        kernel=(3, 3, 3, 3),
        stride=(1,) * 4,
        padding=(1,) * 4,
        dilation=(1,) * 4,
        input_size=(4,) * 4,
        output_size=(4,) * 4,
    )
    runtime = TARGET.runtimes[0]
    assert Host().probe(runtime, "fp32", [cube], threads=1, progress=Silent()) == (None,)


@pytest.mark.slow
def test_eight_times_the_work_takes_longer() -> None:
    """Not a speed, an order: eight times the output channels cannot be cheaper."""
    pytest.importorskip("onnx")
    big = replace(CONVOLUTION, in_channels=64, input_size=(28, 28), output_size=(14, 14))
    layers = [replace(big, out_channels=64), replace(big, out_channels=512)]
    for runtime in TARGET.runtimes:
        less, more = Host().probe(runtime, "fp32", layers, threads=1, progress=Silent())
        assert less is not None
        assert more is not None
        assert less < more
