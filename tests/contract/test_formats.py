"""Every format, by registry: what is written is complete, silent, named, and computes as the program does."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks import Block
from toolchain import registry
from toolchain.artifacts import content_hash
from toolchain.contracts import Format
from toolchain.errors import ConversionError, InputError
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse
from toolchain.program.connecting import connected, loosened
from toolchain.program.lower import lower
from toolchain.program.rewrite import apply
from toolchain.values import Program
from toolchain.verify.coreml import check_coreml
from toolchain.verify.parity import check_float

FORMATS = registry.names("toolchain.export")
METADATA = {
    "edgefit.classes": json.dumps(["Katze", "Hündin"], ensure_ascii=False),
    "edgefit.preprocessing": '{"mean": [0.5]}',
    "edgefit.empty": "",
}


class Residual(nn.Module):
    """Batch norm, a strided residual with zero-padded channels, global pooling that squeezes all it can."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = torch.relu(self.body(x) + short)
        return self.head(x.mean(dim=(2, 3), keepdim=True).squeeze())


class TwoByTwo(nn.Module):
    """Two inputs in an order that is not alphabetical, two outputs of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, zebra, apple):
        total = torch.relu(self.left(zebra)) - self.right(apple)
        return total, total.sum(dim=1, keepdim=True)


class Recurrent(nn.Module):
    """Five steps of an LSTM in both directions."""

    def __init__(self):
        super().__init__()
        self.steps = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.steps(x)[0].mean(1))


@dataclass(frozen=True, kw_only=True)
class Case:
    program: Program
    inputs: tuple[np.ndarray, ...]


def _with_statistics(module: nn.Module) -> nn.Module:
    """Batch norms whose statistics, scales and offsets are not the initial ones."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return module


NETWORKS = {
    "residual": (Residual, [(3, 3, 8, 8)]),
    "two-by-two": (TwoByTwo, [(3, 6), (3, 3)]),
    "recurrent": (Recurrent, [(3, 5, 3)]),
}


def make_case(name: str) -> Case:
    torch.manual_seed(0)
    module, shapes = NETWORKS[name]
    example = tuple(torch.randn(shape) for shape in shapes)
    program = capture(_with_statistics(module()), example, name=name)
    return Case(program=program, inputs=tuple(x.numpy() for x in example))


@pytest.fixture(scope="module", params=NETWORKS)
def case(request) -> Case:
    return make_case(request.param)


@pytest.fixture(scope="module")
def small() -> Program:
    """For what does not depend on the network: every writing takes seconds."""
    return capture(nn.Linear(6, 4), (torch.randn(2, 6),), name="small")


@pytest.fixture(scope="module", params=FORMATS)
def form(request) -> Format:
    found = registry.find("toolchain.export", "FORMAT", request.param)
    for package in found.packages:
        pytest.importorskip(package)
    return found


@pytest.fixture(scope="module")
def written(case, form, tmp_path_factory):
    """The file, made once per network and format, and what the process printed meanwhile."""
    folder = tmp_path_factory.mktemp(form.name)
    before = fingerprint(case.program)
    artifact = form.write(case.program, folder / f"model{form.suffix}", METADATA)
    assert fingerprint(case.program) == before, "the program was changed"
    assert [p.name for p in folder.iterdir()] == [f"model{form.suffix}"], "something was left behind"
    return artifact


def test_the_name_is_the_file_name(form):
    assert form.name in FORMATS
    assert (form.open is None) == bool(form.closed_because)


def test_artifact_describes_the_file(written, form):
    assert written.format == form.name
    assert written.path.exists()
    assert written.sha256 == content_hash(written.path)
    files = [p for p in written.path.rglob("*") if p.is_file()] or [written.path]
    assert written.size_bytes == sum(p.stat().st_size for p in files) > 0


def test_equal_programs_give_equal_files(written, case, form, tmp_path):
    again = form.write(case.program, tmp_path / f"other{form.suffix}", METADATA)
    assert parts(again.path) == parts(written.path)
    assert again.sha256 == written.sha256


def parts(path):
    """The hash of every file of an artifact, so that a difference says where it is."""
    files = [p for p in path.rglob("*") if p.is_file()] or [path]
    return {str(p.relative_to(path)): content_hash(p) for p in files}


def test_metadata_comes_back(written, form):
    read = form.read(written.path)
    assert {key: read.get(key) for key in METADATA} == METADATA


def test_reopened_file_computes_what_the_program_does(written, case, form):
    if form.open is None:
        checks = check_coreml(written, case.program, case.inputs, subject="file")
        assert [c.status for c in checks] == ["pass", "pass", "pass", "not run"], checks
        assert checks[-1].detail == "interpreted; not run on Apple hardware"
        return
    session = form.open(written.path)
    assert session.inputs == tuple(spec.name for spec in case.program.inputs)
    assert session.outputs == tuple(spec.name for spec in case.program.outputs)
    for batch in (1, 3):
        inputs = tuple(x[:batch] for x in case.inputs)
        check = check_float(case.program, session, inputs, subject="file")
        assert check.status == "pass", check


def test_wrong_weights_are_found(written, case, form):
    """The comparison can fail: the same file against a program with one changed weight."""
    changed = capture(
        _with_statistics(NETWORKS[case.program.name][0]()),
        tuple(torch.from_numpy(x) for x in case.inputs),
        name=case.program.name,
    )
    if form.open is None:
        checks = check_coreml(written, changed, case.inputs, subject="file")
        assert [c.status for c in checks] == ["pass", "fail", "fail", "not run"], checks
    else:
        assert check_float(changed, form.open(written.path), case.inputs, subject="file").status == "fail"


class Biased(nn.Module):
    """A bias from a small network of constants, as the position biases of Swin v2."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.table = nn.Linear(6, 4), nn.Linear(2, 4)
        self.register_buffer("where", torch.ones(2))

    def forward(self, x):
        return self.head(x) + self.table(self.where)


def test_layers_of_constants_are_no_weights_of_the_file(form, tmp_path):
    program = capture(Biased(), (torch.randn(3, 6),), name="biased")
    artifact = form.write(lower(program), tmp_path / f"model{form.suffix}", {})
    if form.open is None:
        assert "fail" not in [c.status for c in check_coreml(artifact, program, subject="file")]
    else:
        check = check_float(program, form.open(artifact.path), (np.ones((3, 6), np.float32),), subject="file")
        assert check.status == "pass", check


def test_missing_folder_is_one_clear_line(small, form, tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        form.write(small, tmp_path / "absent" / f"model{form.suffix}", {})
    assert list(tmp_path.iterdir()) == []


def test_garbage_is_refused_on_opening(form, tmp_path):
    if form.open is None:
        pytest.skip(form.closed_because)
    path = tmp_path / f"model{form.suffix}"
    path.write_bytes(b"not a model")
    with pytest.raises(ConversionError, match="opening model"):
        form.open(path)


def test_failed_write_keeps_what_stood_there(small, form, tmp_path, monkeypatch):
    path = tmp_path / f"model{form.suffix}"
    path.write_bytes(b"earlier")

    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match="No space left"):
        form.write(small, path, {})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"earlier"


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_weights_larger_than_a_file_are_refused_at_once(small, name, tmp_path, monkeypatch):
    form = registry.find("toolchain.export", "FORMAT", name)
    for package in form.packages:
        pytest.importorskip(package)
    monkeypatch.setattr("toolchain.export._graph.FILE_LIMIT", 4 * (6 * 4 + 4))
    with pytest.raises(ConversionError, match="GB of weights"):
        form.write(small, tmp_path / "model", {})
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys, torch
from pathlib import Path
from toolchain import registry
from toolchain.program.capture import capture
forms = [registry.find("toolchain.export", "FORMAT", name) for name in sys.argv[2:]]
heavy = [package for form in forms for package in form.packages if package in sys.modules]
assert not heavy, heavy
program = capture(torch.nn.Conv2d(3, 4, 3), (torch.randn(2, 3, 8, 8),), name="tiny")
for form in forms:
    artifact = form.write(program, Path(sys.argv[1]) / f"model{form.suffix}", {})
    if form.open is not None:
        form.open(artifact.path).run((torch.randn(2, 3, 8, 8).numpy(),))
"""


def test_a_fresh_process_prints_nothing(tmp_path):
    """Imports, converters and engines in C++ included; importing the plug-ins loads no converter."""
    forms = [registry.find("toolchain.export", "FORMAT", name) for name in FORMATS]
    there = [f for f in forms if all(importlib.util.find_spec(p) is not None for p in f.packages)]
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *(form.name for form in there)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert {p.name for p in tmp_path.iterdir()} == {f"model{form.suffix}" for form in there}


@pytest.mark.parametrize("number", [0, -1])
def test_missing_package_is_named_with_the_command(small, form, tmp_path, monkeypatch, number):
    package = form.packages[number]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=package) as caught:
        form.write(small, tmp_path / "model", {})
    assert f"pip install 'edgefit[{form.extra}]'" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scattered", [False, True])
def test_branches_with_channels_of_their_own_are_written(form, scattered, tmp_path):
    """As ranges side by side, which are slices and a concatenation, and scattered, which are spread out."""
    torch.manual_seed(0)
    network = _with_statistics(nn.Sequential(Block(3, 16, 2), Block(16, 16), nn.Flatten(), nn.Linear(256, 3)))
    program = loosened(capture(network, (torch.randn(2, 3, 8, 8),), name="mixed"))
    channels = analyse(program)
    keep = {"0.short": range(0, 16, 2), "0.conv2": range(0, 16, 3), "1.conv2": range(1, 16, 2)}
    keep = {name: tuple(units) for name, units in keep.items()}
    small = apply(program, channels, keep) if scattered else connected(program, keep)
    names = [str(node.target) for node in small.module.graph.nodes]
    assert any("index_select" in name for name in names) == scattered
    assert any("cat" in name for name in names) != scattered
    artifact = form.write(lower(small), tmp_path / f"model{form.suffix}", {})
    inputs = (torch.randn(3, 3, 8, 8).numpy(),)
    if form.open is None:
        checks = check_coreml(artifact, small, inputs, subject="file")
        assert [c.status for c in checks] == ["pass", "pass", "pass", "not run"], checks
        return
    check = check_float(small, form.open(artifact.path), inputs, subject="file")
    assert check.status == "pass", check
