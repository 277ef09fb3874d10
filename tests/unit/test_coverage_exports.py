"""The export benchmark on a tiny network, and its table."""

import json

import pytest
import torch
from torch import nn

from benchmarks.coverage import bare, exports
from benchmarks.coverage.exports_run import record_of
from benchmarks.coverage.exports_table import markdown


def record(**networks):
    return {"family": "test", "environment": {"cores": 2}, "networks": networks}


def written(cpu_s, value=1e-7, status="pass"):
    checks = [{"name": "float parity", "status": status, "value": value, "detail": "2 samples"}]
    return {"status": "written", "cpu_s": cpu_s, "wall_s": cpu_s, "bytes": 2_000_000, "checks": checks}


def test_every_export_of_a_tiny_network(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(exports, "FORMATS", ("onnx",))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    steps = []
    found = exports.measure("tiny", net, (3, 8, 8), lambda f: steps.append(f["step"]))
    assert found["status"] == "finished"
    assert sorted(steps) == ["onnx, bare", "onnx, half", "onnx, original"]
    entries = found["formats"]["onnx"]
    assert {e["status"] for e in entries.values()} == {"written"}
    assert [c["status"] for k in ("original", "half") for c in entries[k]["checks"]] == ["pass", "pass"]
    assert entries["half"]["bytes"] < entries["original"]["bytes"]


def test_a_failed_export_is_an_entry_with_its_cause(monkeypatch):
    def refuse(*_):
        raise RuntimeError("no such operator\ntraceback")

    monkeypatch.setitem(bare.EXPORTERS, "onnx", refuse)
    found = exports.bare_export("onnx", nn.ReLU(), torch.zeros(2, 3))
    assert found["status"] == "failed"
    assert "no such operator" in found["reason"]


def test_the_table_counts_and_compares():
    entries = {"bare": written(4.0), "original": written(3.0), "half": written(2.0)}
    text = markdown(record(net={"status": "finished", "formats": {"onnx": entries}}), [])
    assert "1 of 1 originals written, 1 passed their checks" in text
    assert "median time 0.75x the bare exporter's" in text
    assert "| net | 4.0 | 3.0 | 0.75 | 2.0 | 2.0 | 2.0 | 2.0 | 1.0e-07 | 1.0e-07 |" in text
    assert "## Failed" not in text


def test_the_table_explains_failures_and_hides_none():
    failed = {"status": "failed", "reason": "Lowering not found: aten.roll"}
    entries = {"bare": failed, "original": written(3.0, 0.5, "fail"), "half": failed}
    known = [
        {"network": "net.*", "format": "tflite", "cause": "aten.roll", "explanation": "Why.", "link": "URL"}
    ]
    lost = {"status": "unfinished", "reason": "killed by signal 9 (at onnx, half)"}
    text = markdown(record(net={"status": "finished", "formats": {"tflite": entries}}, lost=lost), known)
    assert "0 of 1 half-pruned written" in text
    assert "- net, TFLite, half: Lowering not found: aten.roll. Known: Why. URL" in text
    assert "- net, TFLite, original: float parity: 0.5 2 samples. Not explained." in text
    assert "- lost, all, run: killed by signal 9 (at onnx, half). Not explained." in text
    assert "| net | failed | 3.0 | - | failed |" in text


def test_runners_share_one_results_file(tmp_path):
    path = tmp_path / "exports.json"
    for name in ("one", "two"):
        with record_of(path, "test") as found:
            found["networks"][name] = {"status": "not run", "reason": "too large"}
    assert sorted(json.loads(path.read_text())["networks"]) == ["one", "two"]
    assert "- two: too large" in path.with_suffix(".md").read_text()
