"""Core ML files through `compress`: interpreted, said to be so, and never called a measurement."""

import pytest

from toolchain import cli
from toolchain.report.record import read_record
from toolchain.verify.mil import execution

pytest.importorskip("coremltools")
SAYS = "interpreted; not run on Apple hardware"


def compress(model, out, capfd):
    words = ["compress", model, "--target", "iphone", "--budget-params", "250k", "--formats", "coreml"]
    code = cli.main([str(word) for word in (*words, "--out", out, "--quiet")])
    assert capfd.readouterr().err == ""
    return code, read_record(out / "report.json")


def test_what_a_package_computes_is_compared_and_said_to_be_interpreted(digits, tmp_path, capfd):
    code, record = compress(digits[0], tmp_path / "out", capfd)
    assert code == 0
    checks = {check["name"]: check for check in record["checks"]}
    parity, ran = checks["fp16 signal to noise"], checks["Core ML execution"]
    assert (parity["status"], parity["limit"], parity["unit"]) == ("pass", 40.0, "dB")
    assert 40 < parity["value"] < 120, "fp16 is neither wrong nor exact"
    assert parity["detail"].endswith(SAYS)
    assert (ran["status"], ran["detail"]) == ("not run", SAYS)
    for page in ("report.md", "report.html"):
        assert SAYS in (tmp_path / "out" / page).read_text()
    assert record["result"]["measurements"] == []
    files = {file["precision"]: file for file in record["result"]["artifacts"]}
    assert files.keys() == {"fp16", "int8-weights"}
    assert all(file["metric"] is None for file in files.values())
    assert checks["int8 weights signal to noise"]["status"] == "pass"
    assert checks["int8 weights signal to noise"]["value"] < parity["value"]


def test_an_operator_that_is_not_interpreted_is_named_and_no_failure(digits, tmp_path, capfd, monkeypatch):
    for table in (execution.COMPUTED, execution.MOVED):
        monkeypatch.delitem(table, "conv", raising=False)
    code, record = compress(digits[0], tmp_path / "out", capfd)
    assert code == 0
    checks = {check["name"]: check for check in record["checks"]}
    assert "fp16 signal to noise" not in checks
    assert checks["Core ML weights"]["status"] == "pass"
    ran = checks["Core ML execution"]
    assert ran["status"] == "not run"
    assert ran["detail"].startswith("not interpreted (operator 'conv' (")
    assert ran["detail"].endswith("is unknown here); not run on Apple hardware")
    assert SAYS not in (tmp_path / "out" / "report.md").read_text()
