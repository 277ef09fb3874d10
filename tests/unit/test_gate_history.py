"""The noise that is kept with a device, and the history: lines only added, changes found where they are."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tests.unit.test_gate import Fake, asked, gate, git  # noqa: F401 - `asked` is a fixture
from toolchain import cli
from toolchain.contracts import Silent
from toolchain.errors import InputError
from toolchain.gate.history import append, history
from toolchain.gate.noise import measure_noise
from toolchain.latency.changes import LEAST, changes
from toolchain.report.gate_text import noise_text
from toolchain.report.history_page import history_text, picture


@pytest.mark.parametrize("seed", range(5))
def test_changes_are_found_where_they_are(seed):
    rng = np.random.default_rng(seed)
    levels = np.repeat([1.0, 1.1, 0.9], [20, 15, 25])
    found = changes(levels * (1 + 0.01 * rng.standard_normal(60)))
    assert [c.index for c in found] == [20, 35]
    assert found[0].after / found[0].before == pytest.approx(1.1, rel=0.02)
    assert found[1].after == pytest.approx(0.9, rel=0.02)
    assert all(c.p <= 0.01 for c in found)


def test_noise_alone_is_seldom_a_change():
    rng = np.random.default_rng(0)
    assert sum(bool(changes(1 + 0.05 * rng.standard_normal(30))) for _ in range(60)) <= 4


def test_the_energy_distance_is_that_of_the_definition():
    from toolchain.latency.changes import _best

    values = np.random.default_rng(1).normal(size=11)
    distances = np.abs(values[:, None] - values[None, :])
    wanted = []
    for at in range(LEAST, len(values) - LEAST + 1):
        x, y = values[:at], values[at:]
        across = 2 * np.mean([abs(a - b) for a in x for b in y])
        inside = [np.mean([abs(a - b) for i, a in enumerate(v) for b in v[:i]]) for v in (x, y)]
        wanted.append(len(x) * len(y) / len(values) * (across - sum(inside)))
    energy, place = _best(distances)
    assert energy == pytest.approx(max(wanted))
    assert place == LEAST + int(np.argmax(wanted))


def test_too_few_values_have_no_change():
    assert changes([1.0] * 5 + [2.0] * 0) == ()
    assert changes([]) == ()


@pytest.fixture
def lines(asked, tmp_path):  # noqa: F811
    """A history of 24 gates of which the last 12 are 20 % slower."""
    path = tmp_path / "latency.jsonl"
    device = Fake(spread=0.002)
    device.rng = np.random.default_rng(7)
    for number in range(24):
        append(path, gate(asked(1.0 if number < 12 else 1.2, device=device, seconds=0.01), Silent()))
    return path


def test_a_history_shows_its_change_and_is_drawn(lines, tmp_path, capsys):
    assert len(lines.read_text().splitlines()) == 24
    record = history(lines)
    (series,) = record["series"]
    assert len(series["points"]) == 24
    text = history_text(record)
    assert "24 gates" in text
    assert "E-divisive" in text
    for name in ("latency.svg", "latency.html"):
        assert cli.main(["history", str(lines), "--picture", str(tmp_path / name), "--quiet"]) == 0
    root = ET.fromstring((tmp_path / "latency.svg").read_text())
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 24
    assert "<script" not in (tmp_path / "latency.html").read_text()
    assert capsys.readouterr().out.startswith(text[:40])


def test_lines_that_are_not_whole_are_left_out_and_never_joined(lines, asked):  # noqa: F811
    with lines.open("a") as file:
        file.write('{"schema": "edgefit.hist')
    append(lines, gate(asked(1.0), Silent()))
    record = history(lines)
    assert record["skipped_lines"] == 1
    assert sum(len(series["points"]) for series in record["series"]) == 25
    assert "1 lines are not whole" in history_text(record)


def test_other_conditions_are_another_series(lines):
    found = [json.loads(text) for text in lines.read_text().splitlines()]
    found[5]["identity"] = {**found[5]["identity"], "runtime_version": "2.0"}
    lines.write_text("".join(json.dumps(line) + "\n" for line in found))
    assert [len(series["points"]) for series in history(lines)["series"]] == [23, 1]
    picture(history(lines), lines.with_suffix(".svg"))


@pytest.mark.parametrize("content", ["", "nonsense\n", '{"schema": "edgefit.report/1"}\n'])
def test_a_file_without_our_lines_is_one_clear_line(content, tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match="no line of a gate"):
        history(path)
    with pytest.raises(InputError, match="cannot read"):
        history(tmp_path / "gone.jsonl")


def test_the_commit_comes_from_ci_or_from_git(asked, tmp_path, monkeypatch):  # noqa: F811
    for variable in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        monkeypatch.delenv(variable, raising=False)
    record = gate(asked(1.0), Silent())
    git(tmp_path, "init", "-q")
    append(tmp_path / "h.jsonl", record)
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    append(tmp_path / "h.jsonl", record)
    monkeypatch.setenv("CI_COMMIT_SHA", "abc")
    append(tmp_path / "h.jsonl", record)
    found = [json.loads(text)["commit"] for text in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert (found[0], len(found[1]), found[2]) == (None, 40, "abc")


def test_noise_is_measured_kept_and_then_used_by_the_gate(asked):  # noqa: F811
    request = asked(1.0, device=Fake(spread=0.03), seconds=0.01)
    record = measure_noise(request, request.candidate, Silent())
    # Both sides scatter by 3 %, so pairs by 4.2 % and a block of eight by about 1.5 %.
    assert record["noise"]["ratio"] == pytest.approx(0.015, rel=0.7)
    assert record["noise"]["blocks"] >= 6
    assert "300" in noise_text(record) or "5 min" in noise_text(record)
    used = gate(asked(1.0, device=Fake(spread=0.03), max_regression=1e-3), Silent())
    assert used["checks"][0]["limit"] == pytest.approx(1 + record["least_threshold"])
    assert used["noise"]["blocks"] == record["noise"]["blocks"]


@pytest.mark.slow
def test_noise_without_a_model_measures_a_small_network(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("EDGEFIT_CACHE", str(tmp_path))
    assert cli.main(["noise", "--seconds", "0.1", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("NOISE  ")
    (kept,) = (tmp_path / "noise").iterdir()
    assert json.loads(kept.read_text())["ratio"] > 0
