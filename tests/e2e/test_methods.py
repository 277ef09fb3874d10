"""`--method` through the command line: learned under its limit, resumed, refused; the plan replays."""

import json

import pytest
import torch
from interrupting import interrupted, part_of

from toolchain import cli
from toolchain.report.record import read_record


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """A part of the digits: short epochs."""
    return part_of(digits, 320, tmp_path_factory.mktemp("few"))


FIXED = (
    *("--formats", "onnx", "--precision", "fp32", "--runtime", "onnxruntime"),
    *("--batch-size", "32", "--criterion", "magnitude", "--epochs", "1"),
)


def words(few, out, *more):
    model, data = few
    return [*map(str, [model, "--data", data, *FIXED, "--out", out, *more])]


@pytest.mark.slow
def test_bar_holds_its_limit_and_its_plan_replays(few, tmp_path, capfd):
    asked = words(few, tmp_path / "smaller", "--budget-macs", "2M", "--method", "bar", "--method-epochs", "4")
    assert cli.compress([*asked, "--quiet"]) == 0
    assert capfd.readouterr().err == ""
    record = read_record(tmp_path / "smaller" / "report.json")
    plan = json.loads((tmp_path / "smaller" / "plan.json").read_text())
    assert plan["criterion"] == "bar"
    assert plan["program"] == record["model"]["fingerprint"], "a plan is for the network as handed in"
    assert record["result"]["cost"]["macs"] <= 2_000_000
    assert record["verdict"] == "held"
    assert record["request"]["learning"]["method"] == "bar"
    assert any(note.startswith("bar: after 4 epochs") for note in record["notes"])

    again = [str(few[0]), "--data", str(few[1]), "--apply", str(tmp_path / "smaller" / "plan.json"), *FIXED]
    assert cli.main(["plan", *again, "--quiet", "--out", str(tmp_path / "again")]) == 0
    replayed = read_record(tmp_path / "again" / "report.json")
    assert replayed["plan"]["widths"] == record["plan"]["widths"]
    assert replayed["result"]["cost"] == record["result"]["cost"]


def learned_epochs(work):
    for path in work.glob("learning-*/checkpoint.pt"):
        return len(torch.load(path, weights_only=True)["history"])
    return 0


@pytest.mark.slow
def test_interrupted_while_learning_and_resumed(few, tmp_path, capfd):
    out = tmp_path / "smaller"
    work = out.with_name("smaller.work")
    asked = words(few, out, "--budget-macs", "2M", "--method", "bar", "--method-epochs", "5")
    ready = lambda: learned_epochs(work) > 0  # noqa: E731
    code, text, progress = interrupted(["compress", *asked], tmp_path, ready, every=0.05)
    assert (code, text) == (130, ""), progress
    assert "learning interrupted in epoch" in progress
    assert "Traceback" not in progress
    kept = learned_epochs(work)
    assert 1 <= kept < 5
    assert cli.compress([*asked, "--resume", "--quiet"]) == 0
    capfd.readouterr()
    assert learned_epochs(work) == 5
    record = read_record(out / "report.json")
    assert any(note.startswith("bar: after 5 epochs") for note in record["notes"])
    assert (
        cli.compress([*words(few, tmp_path / "whole", *asked[asked.index("--budget-macs") :]), "--quiet"])
        == 0
    )
    whole = (tmp_path / "whole" / "digits.onnx").read_bytes()
    assert (out / "digits.onnx").read_bytes() == whole, "the same seed, the same file, interrupted or not"


def test_uniform_narrows_every_group_alike(few, tmp_path, capfd):
    asked = words(few, tmp_path / "smaller", "--budget-macs", "2M", "--method", "uniform")
    assert cli.compress([*asked, "--quiet"]) == 0
    capfd.readouterr()
    record = read_record(tmp_path / "smaller" / "report.json")
    shares = {w["layer"]: w["after"] / w["before"] for w in record["plan"]["widths"]}
    narrowed = [share for share in shares.values() if share < 1]
    assert max(narrowed) - min(narrowed) < 0.1
    assert record["plan"]["dropped"] == []
    assert record["result"]["cost"]["macs"] <= 2_000_000


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "baar"], "unknown method 'baar'"),
        (["--method", "uniform", "--method-strength", "2"], "it has no penalty"),
        (["--method", "bar"], "there is nothing to learn from"),
        (["--method", "bar", "--data", "DATA", "--method-epochs", "0"], "there is nothing to learn from"),
        (["--method", "bar", "--data", "DATA", "--allow-resize"], "do not go together"),
        (["--method", "bar", "--data", "DATA", "--schedule", "agp"], "leave one of them out"),
    ],
)
def test_what_cannot_be_learned_is_refused(few, more, said, tmp_path, capfd):
    model, data = few
    asked = [model, "--budget-macs", "2M", "--out", tmp_path / "result"]
    asked += [data if word == "DATA" else word for word in more]
    assert cli.compress([*map(str, asked)]) == 2
    assert said in "".join(capfd.readouterr())
    assert list(tmp_path.iterdir()) == []
