"""The gate's benchmark: slower networks answer as before, runs resume, alarms are counted as defined."""

import gzip
import json

import numpy as np
import pytest

from benchmarks.gate import report, run
from benchmarks.gate.mlperf import SAME, alarms, pairs, replay
from benchmarks.gate.slower import add_work


def test_added_work_leaves_the_answers_as_they_are(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from tests.contract.test_targets import small_onnx

    plain = small_onnx(tmp_path / "a.onnx").path
    model = onnx.load(str(plain))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(plain))
    macs = add_work(plain, tmp_path / "b.onnx", [0])
    assert macs == 9 * 3 * 4 * 6 * 6
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (before,) = onnxruntime.InferenceSession(str(plain)).run(None, {"x": x})
    after = onnxruntime.InferenceSession(str(tmp_path / "b.onnx")).run(None, {"x": x})
    assert len(after) == 2
    np.testing.assert_array_equal(after[0], before)


def test_finished_runs_are_kept_and_torn_lines_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RAW", tmp_path)
    run.append("aa", {"run": 0})
    with (tmp_path / "aa.jsonl").open("a") as file:
        file.write('{"run": 1, "ver')
    run.append("aa", {"run": 1})
    assert run.read("aa") == [{"run": 0}, {"run": 1}]
    assert run.read("ab-5") == []


def test_a_piece_that_was_not_run_says_so():
    assert "not run" in report.row("A/A", [], "at most 1 %")
    entry = {
        "verdict": "fail",
        "seconds": 61.0,
        "threshold": 0.05,
        "load": 1.0,
        "naive": {"wall": 1.06, "cpu": None},
    }
    line = report.row("A/A", [entry, {**entry, "verdict": "pass", "seconds": 3.0}], "")
    assert "1 of 2 (50.0 %)" in line
    assert "1 over 60 s" in line
    assert line.split("|")[-3].strip() == "2 of 2 (100.0 %)"
    assert line.split("|")[-2].strip() == "0 of 2 (0.0 %)"


def mlperf_row(number, **figures):
    return {**dict.fromkeys(SAME, "x"), "round": f"v{number}", "min_duration_ms": "600000", **figures}


def test_pairs_are_successive_runs_of_the_same_thing(tmp_path):
    rows = [mlperf_row(2, p50_ms="1.2"), mlperf_row(1, p50_ms="1.0"), mlperf_row(3, p50_ms="1.25")]
    rows.append({**mlperf_row(4, p50_ms="9"), "device": "y"})
    found = pairs(rows)
    assert [(a["round"], b["round"]) for a, b in found] == [("v1", "v2"), ("v2", "v3")]
    assert alarms(found, "p50_ms", 0.05) == (1, 2)
    path = tmp_path / "rows.csv.gz"
    names = [*dict.fromkeys(("round", *SAME, "min_duration_ms", "min_ms", "p50_ms", "mean_ms"))]
    names += ["p90_ms", "p95_ms", "p97_ms", "p99_ms", "p999_ms"]
    with gzip.open(path, "wt") as file:
        file.write(",".join(names) + "\n")
        for row in rows:
            file.write(",".join('"' + row.get(name, "") + '"' for name in names) + "\n")
    counted = replay(path)
    assert counted["pairs"] == 2
    assert counted["alarms"]["10 %"]["p50_ms"] == (1, 2)
    assert counted["alarms"]["10 %"]["p99_ms"] == (0, 0)
    json.dumps(counted)
