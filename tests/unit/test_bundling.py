"""Bundles: the runner and a library out of a wheel that pip finds (here in a folder, without a network)."""

import hashlib
import json
import subprocess
import zipfile

import pytest

from targets._shared import bundling
from targets._shared.runner import PREFIXES, native
from tests.runners import binary
from toolchain import cli

CONTENT = b"\x7fELF a library"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels that is all pip knows."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("EDGEFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundling, "installed_version", lambda name: None)
    monkeypatch.setattr(bundling, "runner", lambda arch: built)
    built = binary()
    return folder


def wheel(folder, machine="aarch64", files=("ai_edge_litert/libLiteRt.so",)):
    """A wheel of LiteRT as PyPI has them: its metadata and `files`."""
    import sys

    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    info = "ai_edge_litert-2.3.0.dist-info"
    path = folder / f"ai_edge_litert-2.3.0-{tag}-{tag}-manylinux_2_27_{machine}.whl"
    with zipfile.ZipFile(path, "w") as out:
        for name in files:
            out.writestr(name, CONTENT)
        out.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: 2.3.0\n")
        out.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}-{tag}-manylinux_2_27_{machine}\n")
        out.writestr(f"{info}/RECORD", "")


def bundle(*words):
    return cli.main(["runner", "bundle", *map(str, words)])


def test_a_bundle_holds_the_runner_and_the_library(index, tmp_path, capsys):
    wheel(index)
    out = tmp_path / "board"
    assert bundle("--arch", "aarch64", "--runtime", "litert", "--out", out, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert json.loads((out / "bundle.json").read_text()) == {
        k: v for k, v in record.items() if k != "written"
    }
    (library,) = record["libraries"]
    assert (library["runtime"], library["version"], library["file"]) == ("litert", "2.3.0", "libLiteRt.so")
    assert library["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (out / "libLiteRt.so").read_bytes() == CONTENT
    said = subprocess.run([out / "edgefit-runner", "--version"], capture_output=True, text=True, check=True)
    assert record["runner"] in said.stdout
    assert bundle("--arch", "aarch64", "--runtime", "litert", "--out", out) == 0, "made again in its place"


def test_what_was_fetched_is_not_fetched_again(index, tmp_path):
    wheel(index)
    first = bundling.fetch_library("litert", "aarch64")
    for file in index.iterdir():
        file.unlink()
    assert bundling.fetch_library("litert", "aarch64") == first


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--arch", "armv7", "--runtime", "litert"], 6, "no ai-edge-litert==2.3.0 for armv7l"),
        (["--arch", "mips"], 6, "no runner for mips"),
        (["--arch", "aarch64", "--runtime", "tensorrt"], 6, "unknown runtime 'tensorrt'"),
        (["--arch", "aarch64", "--runtime", "litert", "--out", "."], 2, "exists and is no bundle"),
        ([], 2, "--arch"),
    ],
)
def test_what_cannot_be_bundled_is_one_line(index, tmp_path, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(tmp_path)
    wheel(index)
    before = sorted(tmp_path.rglob("*"))
    assert bundle(*words) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") <= 2
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before and p.is_file()] == []


def test_a_wheel_without_the_library_is_refused(index, tmp_path, capsys):
    wheel(index, files=("ai_edge_litert/other.so",))
    assert bundle("--arch", "aarch64", "--runtime", "litert", "--out", tmp_path / "b") == 6
    assert "holds 0 files like" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_version_that_the_runner_does_not_know_is_refused(index, monkeypatch, capsys):
    monkeypatch.setattr(bundling, "installed_version", lambda name: "3.0.0")
    assert bundle("--arch", "aarch64", "--runtime", "litert") == 6
    assert "does not know litert 3.0.0" in capsys.readouterr().err


def test_doctor_says_what_a_target_needs(capsys):
    assert cli.main(["doctor", "--target", "host", "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    names = [need["name"] for need in found["needs"]]
    assert names == ["the C runner", "library of onnxruntime", "library of litert"]
    assert cli.main(["doctor", "--target", "iphone"]) in (0, 1)
    assert "go-ios" in capsys.readouterr().out
    assert cli.main(["doctor", "--target", "fridge"]) == 2
    capsys.readouterr()
    assert cli.main(["doctor", "--target", "jetson", "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert "SSH client" in [need["name"] for need in found["needs"]]


def test_the_native_architecture_is_one_of_those_known():
    assert native() in PREFIXES
