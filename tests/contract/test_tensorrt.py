"""trtexec behind a real sshd. trtexec itself is a script: there is no TensorRT here.

What it prints and exports has the form that NVIDIA's own source gives it (sampleReporting.cpp of TensorRT);
it was not recorded on a Jetson.
"""

import json

import pytest

from targets._routes.ssh import _open
from targets._shared import tensorrt
from targets._shared.tensorrt import records, version_in
from tests.contract.test_ssh import SHORT
from tests.runners import small_onnx
from toolchain import benching
from toolchain.contracts import Silent
from toolchain.errors import DeviceError

ROW = (
    '"startEnqMs" : 0.1, "endEnqMs" : 0.2, "startH2dMs" : 0.1, "endH2dMs" : 0.15, "startComputeMs" : 0.15, '
    '"endComputeMs" : 1.35, "startD2hMs" : 1.35, "endD2hMs" : 1.4, "h2dMs" : 0.05, "computeMs" : 1.2, '
    '"d2hMs" : 0.05, "latencyMs" : 1.3'
)
TRTEXEC = """echo "$0 $*" >> /mnt/calls
for word in "$@"; do case $word in
  --saveEngine=*) [ -f /mnt/refuses ] && { echo "[01/01/2026-00:00:00] [E] bad \\"node\\""; exit 1; }
    echo engine > "${word#*=}";;
  --loadEngine=*) [ -f "${word#*=}" ] || exit 1;;
  --iterations=*) runs=${word#*=};;
  --exportTimes=*) {
      echo "["; sep="  "; k=0
      while [ $k -lt $runs ]; do echo "$sep{ $(cat /mnt/row) }"; sep=", "; k=$((k + 1)); done
      echo "]"
    } > "${word#*=}";;
esac; done
echo "&&&& PASSED TensorRT.trtexec [TensorRT v8502] # trtexec $*"
"""


@pytest.fixture
def jetson(board, tmp_path):
    board.program("trtexec", TRTEXEC)
    (tmp_path / "row").write_text(ROW)
    return board


@pytest.fixture
def model(jetson, tmp_path):
    path = small_onnx(tmp_path / "a $(touch hacked).onnx")
    return benching._given(path, [tensorrt.RUNTIME])


def calls(tmp_path):
    return (tmp_path / "calls").read_text().splitlines()


def test_it_is_driven_with_every_flag_and_what_it_exports_is_read(jetson, model, tmp_path):
    device = _open("//board")
    assert [runtime.name for runtime in device.runtimes] == ["onnxruntime", "litert", "tensorrt"]
    found = device.bench([model], SHORT, Silent())
    assert found.versions == {"tensorrt": "8.5.2"}
    assert [r["trial"] for r in found.records] == [0, 1]
    timing = benching.timing(found.records, SHORT.tier)
    assert timing.p50.value == pytest.approx(1.3)
    assert (timing.cpu_p50_ms, timing.load_ms, timing.settled) == (None, None, None)
    assert found.before["machine"] == found.after["machine"]
    build, first, second = calls(tmp_path)
    assert "--minShapes=x:1x3x8x8 --optShapes=x:1x3x8x8 --maxShapes=x:1x3x8x8" in build
    assert all(flag in build for flag in tensorrt.BUILD)
    assert all(flag in first for flag in (*tensorrt.RUN, "--shapes=x:1x3x8x8", "--iterations=8"))
    assert jetson.left() == []
    assert not list(tmp_path.rglob("hacked"))
    _open("//board").bench([model], SHORT, Silent())
    assert len(calls(tmp_path)) == 5  # the engine is kept
    assert first == second.replace("times-1-0", "times-0-0")


def test_what_tensorrt_refuses_is_one_line(jetson, model, tmp_path):
    (tmp_path / "refuses").touch()
    with pytest.raises(DeviceError, match=r"TensorRT cannot build it: .*bad node") as caught:
        _open("//board").bench([model], SHORT, Silent())
    assert "\n" not in caught.value.message
    assert jetson.left() == []


def test_without_trtexec_there_is_no_tensorrt(board):
    device = _open("//board")
    device.shell.close()
    assert [runtime.name for runtime in device.runtimes] == ["onnxruntime", "litert"]
    assert [r.name for r in benching._chosen((*device.runtimes, tensorrt.RUNTIME), "auto")] == [
        *("onnxruntime", "litert")
    ]


def test_runtimes_are_not_mixed(jetson, model, tmp_path):
    other = benching._given(small_onnx(tmp_path / "b.onnx"), benching.connect("host").runtimes)
    with pytest.raises(DeviceError, match="measured alone"):
        _open("//board").bench([model, other], SHORT, Silent())


def test_only_what_passed_is_believed():
    good = {
        "times-0-0.log": b"&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec",
        "times-0-0.json": f"[\n  {{ {ROW} }}\n, {{ {ROW} }}\n]".encode(),
    }
    (record,) = records(good, 1, 1)
    assert record["wall_ns"] == [1_300_000, 1_300_000]
    assert version_in(good) == "10.3.0"
    assert version_in({}) is None
    for change in (
        {"times-0-0.log": b"&&&& FAILED TensorRT.trtexec [TensorRT v8502]"},
        {"times-0-0.json": b"["},
        {"times-0-0.json": b"[]"},
        {"times-0-0.json": b'[{"computeMs": 1}]'},
        {"times-0-0.json": json.dumps([{"latencyMs": 0}]).encode()},
    ):
        with pytest.raises(DeviceError):
            records(good | change, 1, 1)
    with pytest.raises(DeviceError):
        records(good, 2, 1)
