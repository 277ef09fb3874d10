"""A package that is not installed is one clear line with the extra that brings it, no raw import error."""

import sys
from types import SimpleNamespace

import pytest

from targets.host import TARGET
from toolchain.baseline import combinations
from toolchain.errors import InputError
from toolchain.foreign import require


def asking(runtime):
    """What `combinations` reads of a run without data."""
    request = SimpleNamespace(runtime=runtime, precisions=("fp32", "int8"))
    return SimpleNamespace(request=request, target=TARGET, material=SimpleNamespace(samples=None), notes=[])


def test_a_runtime_that_is_not_installed_is_left_out_and_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    run = asking("auto")
    assert combinations(run) == (("litert", "fp32"),)
    assert run.notes == ["onnxruntime is not installed: not used (pip install 'edgefit[onnx]' brings it)"]


def test_asked_for_by_name_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError) as caught:
        combinations(asking("onnxruntime"))
    assert caught.value.message == "runtime 'onnxruntime' needs onnx, which is not installed"
    assert caught.value.hint == "pip install 'edgefit[onnx]'"


def test_a_missing_package_is_told_from_a_broken_one(monkeypatch, tmp_path):
    (tmp_path / "broken_engine.py").write_text("raise ImportError('libengine.so.3: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    said = {}
    for package in ("absent_engine", "broken_engine"):
        with pytest.raises(InputError) as caught:
            require((package,), extra="onnx", purpose="writing ONNX")
        said[package] = caught.value.message
        assert caught.value.hint == "pip install 'edgefit[onnx]'"
    assert said == {
        "absent_engine": "writing ONNX needs the package 'absent_engine', which is not installed",
        "broken_engine": "writing ONNX needs the package 'broken_engine', which does not load: "
        "libengine.so.3: no such file",
    }
