"""`--schedule` through the command line: the planned widths, another way to them, and a plan that replays."""

import json

import pytest
from interrupting import part_of

from toolchain import cli
from toolchain.load import load
from toolchain.program.capture import fingerprint
from toolchain.report.record import read_record


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """A part of the digits: short epochs."""
    return part_of(digits, 320, tmp_path_factory.mktemp("few"))


FIXED = (
    "--formats",
    "onnx",
    "--precision",
    "fp32",
    "--runtime",
    "onnxruntime",
    "--batch-size",
    "16",
    "--quiet",
)


@pytest.mark.slow
def test_a_scheduled_run_ends_at_the_planned_widths_and_its_plan_replays(few, tmp_path, capfd):
    model, data = few
    words = [model, "--data", data, "--budget-macs", "2M", *FIXED]
    assert cli.main([*map(str, ["plan", *words, "--out", tmp_path / "plan"])]) == 0
    planned = json.loads((tmp_path / "plan" / "plan.json").read_text())
    scheduled = [*words, "--epochs", "2", "--schedule", "iterative", "--out", tmp_path / "result"]
    assert cli.compress([*map(str, scheduled)]) == 0
    assert capfd.readouterr().err == ""
    done = json.loads((tmp_path / "result" / "plan.json").read_text())
    record = read_record(tmp_path / "result" / "report.json")
    assert {n: len(u) for n, u in done["keep"].items()} == {n: len(u) for n, u in planned["keep"].items()}
    assert done["dropped"] == planned["dropped"]
    assert record["result"]["cost"]["macs"] <= 2_000_000
    assert done["keep"] != planned["keep"], "scored anew, other channels should have gone"
    left = [epoch["left"] for epoch in record["training"]["epochs"]]
    assert left[0] > left[1] == record["result"]["cost"]["params"] / record["baseline"]["cost"]["params"]
    assert record["training"]["best_epoch"] == 2
    assert any("schedule iterative" in note for note in record["notes"])

    again = [model, "--data", data, "--apply", tmp_path / "result" / "plan.json", "--epochs", "0", *FIXED]
    assert cli.main([*map(str, ["plan", *again, "--out", tmp_path / "again"])]) == 0
    replayed = read_record(tmp_path / "again" / "report.json")
    assert replayed["plan"]["widths"] == record["plan"]["widths"]
    assert replayed["result"]["cost"] == record["result"]["cost"]
    assert json.loads((tmp_path / "again" / "plan.json").read_text())["keep"] == done["keep"]
    assert replayed["model"]["fingerprint"] == fingerprint(load(model))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--schedule", "one-circle"], "unknown schedule 'one-circle'"),
        (["--schedule", "agp"], "there is none"),
        (["--schedule", "agp", "--data", "DATA", "--epochs", "0"], "there is none"),
        (
            ["--schedule", "agp", "--data", "DATA", "--rescale", "all"],
            "--rescale makes up for a cut made at once",
        ),
        (["--schedule", "agp", "--data", "DATA", "--reestimate-bn"], "--reestimate-bn makes up"),
    ],
)
def test_a_schedule_of_nothing_is_refused(few, more, said, tmp_path, capfd):
    model, data = few
    words = [model, "--budget-macs", "2M", "--out", tmp_path / "result"]
    words += [data if word == "DATA" else word for word in more]
    assert cli.compress([*map(str, words)]) == 2
    assert said in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
