"""`make model`, compress.mk and the firmware project: rebuilt when something changed, and only then."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
for needed in ("ai_edge_litert", "litert_torch", "onnxruntime"):
    pytest.importorskip(needed)
if shutil.which("make") is None or shutil.which("cc") is None:
    pytest.skip("no make or compiler", allow_module_level=True)


class Project:
    """A folder with the Makefiles of this checkout, and a log of how often the tool was called for what."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("Makefile", "compress.mk"):
            shutil.copy(ROOT / name, folder)
        ignored = shutil.ignore_patterns("build", "keyword*")
        shutil.copytree(ROOT / "examples" / "firmware", folder / "examples" / "firmware", ignore=ignored)
        self.log = folder / "calls"
        self.tool = folder / "edgefit"
        self.tool.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] || echo "$1" >> {self.log}\n'
            f'exec "{sys.executable}" -m toolchain.cli "$@"\n'
        )
        self.tool.chmod(0o755)
        self.environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            "EDGEFIT_CACHE": str(folder / "cache"),
        }

    def make(self, *words, where=""):
        """(exit code, what was printed, which commands of the tool ran, in their order)."""
        self.log.write_text("")
        done = subprocess.run(
            ["make", "-j2", f"EDGEFIT={self.tool}", f"PYTHON={sys.executable}", *words],
            cwd=self.folder / where, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, self.log.read_text().split()

    def touch(self, name):
        """Make a file newer than everything that was made from it."""
        later = time.time() + 2
        os.utime(self.folder / name, (later, later))
        return name


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("make"))


FIRMWARE = "examples/firmware"


@pytest.fixture(scope="module")
def firmware(project):
    """The folder of the firmware project, which needs the generator of C."""
    pytest.importorskip("emx_onnx_cgen")
    return project.folder / FIRMWARE


def printed_by(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_the_firmware_is_built_once_and_then_left_alone(project, firmware):
    code, said, calls = project.make(where=FIRMWARE)
    assert code == 0, said
    assert calls == ["compress", "embed"]
    program = firmware / "build" / "host" / "firmware"
    first = program.stat().st_mtime_ns
    code, said, calls = project.make(where=FIRMWARE)
    assert (code, calls) == (0, [])
    assert program.stat().st_mtime_ns == first


def test_the_firmware_computes_what_onnxruntime_does(project, firmware):
    import hashlib

    import numpy as np
    import onnxruntime

    code, said, _ = project.make(where=FIRMWARE)
    assert code == 0, said
    printed = printed_by([firmware / "build" / "host" / "firmware"]).splitlines()
    model = firmware / "keyword.onnx"
    assert printed[0] == f"network {hashlib.sha256(model.read_bytes()).hexdigest()}"
    wave = (np.arange(784) * 37 % 257 / 128 - 1).astype(np.float32).reshape(1, 1, 28, 28)
    wanted = onnxruntime.InferenceSession(model).run(None, {"input": wave})[0].ravel()
    np.testing.assert_allclose([float(line.split()[1]) for line in printed[1:]], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("main.c", []),
        ("keyword.onnx", ["embed"]),
        pytest.param("keyword.pt2", ["compress", "embed"], marks=pytest.mark.slow),
    ],
)
def test_what_depends_on_a_touched_file_is_made_again_and_no_more(project, firmware, name, wanted):
    project.make(where=FIRMWARE)
    program = firmware / "build" / "host" / "firmware"
    before = program.stat().st_mtime_ns
    project.touch(f"{FIRMWARE}/{name}")
    code, said, calls = project.make(where=FIRMWARE)
    assert (code, calls) == (0, wanted), said
    assert program.stat().st_mtime_ns > before


@pytest.mark.slow
def test_other_flags_make_the_model_again(project, firmware):
    project.make(where=FIRMWARE)
    more = "EDGEFIT_FLAGS=--budget-params 2000 --formats onnx"
    assert project.make(more, where=FIRMWARE)[2] == ["compress", "embed"]
    assert project.make(more, where=FIRMWARE)[2] == []


ARCHITECTURES = [
    pytest.param("aarch64", "aarch64-linux-gnu-gcc", "qemu-aarch64", 183, id="aarch64"),
    pytest.param("armv7", "arm-linux-gnueabihf-gcc", "qemu-arm", 40, id="armv7"),
]


@pytest.mark.parametrize(("architecture", "compiler", "emulator", "machine"), ARCHITECTURES)
def test_the_firmware_prints_the_same_on_other_processors(
    project, firmware, architecture, compiler, emulator, machine
):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    code, said, _ = project.make(f"ARCH={architecture}", where=FIRMWARE)
    assert code == 0, said
    program = firmware / "build" / architecture / "firmware"
    assert int.from_bytes(program.read_bytes()[18:20], "little") == machine
    if shutil.which(emulator) is None:
        pytest.skip(f"built, not run: no {emulator}")
    project.make(where=FIRMWARE)
    assert printed_by([emulator, program]) == printed_by([firmware / "build" / "host" / "firmware"])


def test_make_check_of_the_project_says_that_all_print_the_same(project, firmware):
    needed = ("aarch64-linux-gnu-gcc", "arm-linux-gnueabihf-gcc", "qemu-aarch64", "qemu-arm")
    if not all(map(shutil.which, needed)):
        pytest.skip("not all of " + ", ".join(needed))
    code, said, _ = project.make("check", where=FIRMWARE)
    assert code == 0, said
    assert "the same for host, aarch64 and armv7" in said.splitlines()
    # What one of them prints differs: the check fails.
    later = project.touch(f"{FIRMWARE}/build/armv7/printed")
    (project.folder / later).write_text("something else")
    project.touch(later)
    assert project.make("check", where=FIRMWARE)[0] == 2
    (project.folder / later).unlink()


WORDS = ("model", "MODEL=net.pt2", "FLAGS=--budget-params 2500 --formats onnx")


@pytest.fixture(scope="module")
def result(project):
    """What `make model` made, of a network and a tool of one source file."""
    project.make("keyword.pt2", where=FIRMWARE)
    shutil.copy(project.folder / FIRMWARE / "keyword.pt2", project.folder / "net.pt2")
    source = project.folder / "toolchain" / "a.py"
    source.parent.mkdir()
    source.write_text("")
    (project.folder / "targets").mkdir()
    code, said, calls = project.make(*WORDS)
    assert (code, calls) == (0, ["compress"]), said
    return project.folder / "build" / "host" / "net"


def test_make_model_makes_the_result_once(project, result):
    assert {"net.onnx", "report.json"} <= {p.name for p in result.iterdir()}
    assert project.make(*WORDS)[2] == []


@pytest.mark.slow
def test_other_data_are_noticed(project, result):
    data = project.folder / "data"
    data.mkdir()
    (data / "a").write_text("x")
    # No data that compress can read; what counts here is that other files are noticed.
    code, _, calls = project.make(*WORDS, "DATA=data")
    assert (code, calls) == (2, ["compress"])
    assert (result / "report.json").exists()
    stamp = project.folder / "build" / "host" / "net.asked"
    before = stamp.read_text()
    (data / "b").write_text("y")
    assert project.make(*WORDS, "DATA=data")[2] == ["compress"]
    assert stamp.read_text() != before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net.pt2", "toolchain/a.py"])
def test_model_and_tool_are_noticed(project, result, name):
    project.make(*WORDS)
    project.touch(name)
    assert project.make(*WORDS)[2] == ["compress"]
    time.sleep(2.1)
    project.make(*WORDS)
    assert project.make(*WORDS)[2] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model"], "error: MODEL is not set"),
        (["model", "MODEL=gone.pt2"], "error: no model at gone.pt2"),
        (["model", "MODEL=bad.pt2", "TARGET=phone", "BUDGET_MS=1"], "error: unknown target 'phone'"),
        (["model", "MODEL=bad.pt2"], "error: no budget given"),
        (["model", "MODEL=bad.pt2", "BUDGET_MS=1"], "error: "),
    ],
)
def test_bad_input_fails_the_make_with_one_line(project, words, said):
    (project.folder / "bad.pt2").write_bytes(b"nothing")
    code, printed, _ = project.make(*words)
    assert code == 2
    errors = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith(said)
    assert not (project.folder / "build" / "host" / "bad").exists()


@pytest.mark.slow
def test_a_budget_out_of_reach_leaves_no_result(project):
    project.make("keyword.pt2", where=FIRMWARE)
    shutil.copy(project.folder / FIRMWARE / "keyword.pt2", project.folder / "far.pt2")
    code, said, _ = project.make("model", "MODEL=far.pt2", "FLAGS=--budget-params 3 --formats onnx")
    assert code == 2
    assert "Error 4" in said
    assert sum(line.startswith("error:") for line in said.splitlines()) == 1
    assert not (project.folder / "build" / "host" / "far").exists()


def test_an_unknown_architecture_or_a_missing_compiler_is_one_line(project, firmware):
    for words, said in ((["ARCH=z80"], "ARCH=z80"), (["CROSS=no-such-cc"], "no-such-cc is not installed")):
        code, printed, _ = project.make(*words, "OUT=build/none", where=FIRMWARE)
        assert code == 2
        errors = [line for line in printed.splitlines() if line.startswith("error:")]
        assert len(errors) == 1
        assert said in errors[0]
        assert not (project.folder / FIRMWARE / "build" / "none" / "firmware").exists()


@pytest.mark.slow
def test_a_killed_build_leaves_no_half_made_target(project):
    project.make("keyword.pt2", where=FIRMWARE)
    shutil.copy(project.folder / FIRMWARE / "keyword.pt2", project.folder / "cut.pt2")
    words = ["model", "MODEL=cut.pt2", "FLAGS=--budget-params 2500 --formats onnx"]
    process = subprocess.Popen(
        ["make", f"EDGEFIT={project.tool}", *words],
        cwd=project.folder, env=project.environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    work = project.folder / "build" / "host" / "cut.new.work"
    deadline = time.monotonic() + 300
    while not work.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "ended before it could be interrupted"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project.folder / "build" / "host" / "cut").exists()
    code, said, _ = project.make(*words)
    assert code == 0, said
    assert (project.folder / "build" / "host" / "cut" / "report.json").is_file()


def test_the_same_inputs_give_the_same_files(tmp_path, monkeypatch):
    """ONNX, TFLite and Core ML, and the C sources made from them, in two folders."""
    import torch

    from toolchain.assembly import build, material_of
    from toolchain.embed import embed
    from toolchain.program.capture import capture
    from toolchain.stages import Stages

    pytest.importorskip("coremltools")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
    kinds = [("onnx", "fp32"), ("tflite", "fp32"), ("coreml", "fp16")]
    made = []
    for place in ("one", "two"):
        program = capture(network.eval(), (torch.randn(2, 3, 8, 8),), name="net")
        files = build(program, kinds, Stages(root=tmp_path / place), material_of(program, None, "net"))
        embed(files[kinds[1]].path, tmp_path / place / "c", form="cc")
        sources = sorted((tmp_path / place / "c").iterdir())
        made.append([files[kind].sha256 for kind in kinds] + [path.read_bytes() for path in sources])
    assert made[0] == made[1]
