"""`make firmware`: the runner as a static program with a model linked in, here and on emulated processors."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runners import small_onnx

pytest.importorskip("emx_onnx_cgen")
onnxruntime = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]
EMULATORS = {"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}
COMPILERS = {"aarch64": "aarch64-linux-gnu-gcc", "armv7": "arm-linux-gnueabihf-gcc"}
HERE = platform.machine()
if HERE not in ("x86_64", "aarch64") or shutil.which("make") is None or shutil.which("cc") is None:
    pytest.skip("no make or compiler, or another processor", allow_module_level=True)


class Checkout:
    """The Makefile and the runner's sources in a folder of their own; the tool is that of this checkout."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copy(ROOT / "Makefile", folder)
        shutil.copytree(ROOT / "targets" / "runner", folder / "targets" / "runner")
        tool = folder / "edgefit"
        tool.write_text(
            f'#!/bin/sh\necho "$1" >> {folder}/calls\nexec "{sys.executable}" -m toolchain.cli "$@"\n'
        )
        tool.chmod(0o755)
        self.environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        self.model = small_onnx(folder / "net.onnx")

    def make(self, *words):
        """(exit code, what was printed, how often the tool ran)."""
        (self.folder / "calls").write_text("")
        done = subprocess.run(
            ["make", "-j2", "EDGEFIT=./edgefit", "firmware", *words],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, len((self.folder / "calls").read_text().split())

    def program(self, arch):
        return self.folder / "build" / "firmware" / arch / "net"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    found = Checkout(tmp_path_factory.mktemp("firmware"))
    code, said, calls = found.make("MODEL=net.onnx")
    assert code == 0, said
    assert calls == 1
    return found


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_is_static_and_computes_what_onnxruntime_does(checkout, tmp_path):
    program = checkout.program(HERE)
    assert b"/ld-linux" not in program.read_bytes()[:4096]
    session = onnxruntime.InferenceSession(checkout.model)
    (port,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in port.shape]
    given = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    given.tofile(tmp_path / "in")
    done = run(program, "--run", tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("y float32 1x")
    wanted = session.run(None, {port.name: given})[0]
    np.testing.assert_allclose(
        np.fromfile(tmp_path / "out", np.float32), wanted.ravel(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("arch", EMULATORS)
def test_other_processors_compute_the_same_numbers(checkout, arch):
    if shutil.which(COMPILERS[arch]) is None:
        pytest.skip(f"no {COMPILERS[arch]}")
    code, said, calls = checkout.make("MODEL=net.onnx", f"ARCH={arch}")
    assert code == 0, said
    assert calls == 0, "the source is that of all processors"
    if shutil.which(EMULATORS[arch]) is None:
        pytest.skip(f"built, not run: no {EMULATORS[arch]}")
    here, there = run(checkout.program(HERE)), run(EMULATORS[arch], checkout.program(arch))
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout
    assert here.stdout.startswith("y float32")


def test_the_program_measures_as_the_runner_does(checkout, tmp_path):
    job = (
        "edgefit.job/1\nlibrary linked - - -\nmodel linked - -\nseconds 0.01\nwarmup 5\nwarmup_seconds 0.01\n"
    )
    (tmp_path / "job").write_text(job)
    done = run(checkout.program(HERE), tmp_path / "job")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["type"] for record in records] == ["begin", "trial", "end"]
    assert len(records[1]["wall_ns"]) >= 5
    (tmp_path / "job").write_text(job.replace("model linked -", f"model linked {'0' * 64}"))
    assert run(checkout.program(HERE), tmp_path / "job").returncode == 4


def test_an_input_of_the_wrong_size_is_one_line(checkout, tmp_path):
    (tmp_path / "in").write_bytes(b"short")
    done = run(checkout.program(HERE), "--run", tmp_path / "in")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'in'} does not hold one set of the model's inputs\n"


def test_nothing_is_built_twice_and_what_was_touched_is(checkout):
    program = checkout.program(HERE)
    before = program.stat().st_mtime_ns
    assert checkout.make("MODEL=net.onnx")[2] == 0
    assert program.stat().st_mtime_ns == before
    later = program.stat().st_mtime + 2
    os.utime(checkout.folder / "targets" / "runner" / "linked.c", (later, later))
    assert checkout.make("MODEL=net.onnx")[2] == 0
    assert program.stat().st_mtime_ns > before
    before, later = program.stat().st_mtime_ns, program.stat().st_mtime + 4
    os.utime(checkout.model, (later, later))
    assert checkout.make("MODEL=net.onnx")[2] == 1
    assert program.stat().st_mtime_ns > before


@pytest.mark.slow
def test_a_network_is_compressed_first(checkout):
    torch = pytest.importorskip("torch")
    from toolchain.program.capture import capture, save_program

    layers = (torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3), torch.nn.Flatten())
    network = torch.nn.Sequential(*layers).eval()
    save_program(capture(network, (torch.randn(2, 1, 8, 8),), name="raw"), checkout.folder / "raw.pt2")
    words = ("MODEL=raw.pt2", "FLAGS=--budget-params 300 --formats onnx")
    code, said, calls = checkout.make(*words)
    assert (code, calls) == (0, 2), said
    assert run(checkout.program(HERE).with_name("raw")).stdout.startswith("output float32")
    assert checkout.make(*words)[2] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "error: MODEL is not set"),
        (["MODEL=gone.onnx"], "error: no model at gone.onnx"),
        (["MODEL=bad.onnx"], "error: reading bad.onnx failed"),
        (["MODEL=net.onnx", "ARCH=z80"], "error: no rule for ARCH=z80"),
        (["MODEL=net.onnx", "CC=no-such-cc"], "error: no compiler no-such-cc"),
    ],
)
def test_bad_input_is_one_line(checkout, words, said):
    (checkout.folder / "bad.onnx").write_bytes(b"nothing of the kind")
    if "CC=no-such-cc" in words:
        checkout.program(HERE).unlink(missing_ok=True)
    code, printed, _ = checkout.make(*words)
    assert code == 2
    errors = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith(said)
    assert not checkout.program("z80").exists()
