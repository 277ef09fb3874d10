"""The gate where the device is reached over a route, with what was benched there, and on an emulated core."""

import json

import pytest

from targets._routes import qemu
from tests.runners import binary, small_onnx
from toolchain import cli
from toolchain.errors import DeviceError


@pytest.fixture
def sides(tmp_path, monkeypatch):
    """(a file, the same file, one with sixteen times the work)."""
    cache = tmp_path / "cache" / "runner"
    cache.mkdir(parents=True)
    program = binary()
    (cache / program.name).symlink_to(program)
    monkeypatch.setenv("EDGEFIT_CACHE", str(cache.parent))
    monkeypatch.chdir(tmp_path)
    return (
        small_onnx(tmp_path / "a.onnx"),
        small_onnx(tmp_path / "b.onnx"),
        small_onnx(tmp_path / "c.onnx", 64),
    )


def edgefit(capfd, *words):
    code = cli.main([str(word) for word in (*words, "--quiet")])
    return code, *capfd.readouterr()


def gate(capfd, *words):
    code, text, errors = edgefit(capfd, "gate", *words, "--json")
    return code, json.loads(text) if text else None, errors


@pytest.mark.slow
def test_files_are_compared_on_a_board_and_with_what_was_benched_there(board, sides, tmp_path, capfd):
    plain, _, heavy = sides
    there = ("--device", "ssh://board", "--seconds", "20")
    code, record, errors = gate(capfd, heavy, "--baseline", plain, *there)
    assert (code, errors) == (1, "")
    assert record["checks"][0]["detail"] == "confirmed by a rerun"
    assert record["target"] == "ssh://board"
    for side in ("candidate", "baseline"):
        assert record[side]["measurement"]["conditions"]["device"] == "ssh://board"
    code, text, errors = edgefit(
        capfd, "bench", plain, "--device", "ssh://board", "--tier", "rapid", "--json"
    )
    assert (code, errors) == (0, "")
    (tmp_path / "bench.json").write_text(text)
    code, record, errors = gate(capfd, heavy, "--baseline", "bench.json", *there)
    assert (code, errors) == (1, "")
    assert record["courses"] == []
    code, _, errors = gate(capfd, heavy, "--baseline", "bench.json")
    assert code == 2
    assert "the stored figures are of other conditions: device (ssh://board against host)" in errors
    assert board.left() == []


@pytest.mark.slow
def test_instructions_are_counted_on_an_emulated_core(sides, capfd):
    for need in qemu._needs():
        if not need.found:
            pytest.skip(f"no {need.name}: {need.hint}")
    try:
        qemu.fetch_library("onnxruntime", "aarch64")
    except DeviceError as error:
        pytest.skip(error.message)
    plain, same, heavy = sides
    words = ("--max-instructions", "1", "--max-regression", "100000", "--seconds", "1")
    _, record, errors = gate(capfd, same, "--baseline", plain, *words)
    assert errors == ""
    (count,) = [check for check in record["checks"] if check["name"] == "instructions"]
    assert (count["verdict"], count["value"]) == ("pass", pytest.approx(1, abs=0.01))
    assert "on qemu:cortex-a53, emulated: a count, no time" in count["detail"]
    code, record, _ = gate(capfd, heavy, "--baseline", plain, *words)
    (count,) = [check for check in record["checks"] if check["name"] == "instructions"]
    assert (code, record["verdict"], count["verdict"]) == (1, "fail", "fail")
    assert count["value"] > 1.1
