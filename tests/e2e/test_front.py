"""Several budgets and targets in one run, through the command line: shared stages, independent results."""

import json
from pathlib import Path

import pytest
from interrupting import interrupted, part_of

from toolchain import cli, front
from toolchain.errors import ConversionError
from toolchain.pipeline import plan_run
from toolchain.prune.planfile import read_plan
from toolchain.report.record import chosen_artifact, read_record

ROOT = Path(__file__).parents[2]
QUICK = ["--formats", "onnx", "--precision", "fp32", "--runtime", "onnxruntime"]
REPORTS = {"plan.json", "report.json", "report.md", "report.html"}


def edgefit(words, capfd):
    code = cli.main([str(word) for word in words])
    return code, *capfd.readouterr()


def contents(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_three_budgets_one_unreachable(digits, tmp_path, capfd, monkeypatch):
    model, _ = digits
    out, work = tmp_path / "front", tmp_path / "front.work"
    taken, baseline_of = [], front.baseline_of
    monkeypatch.setattr(front, "baseline_of", lambda run: taken.append(run) or baseline_of(run))
    words = ["compress", model, "--budget-macs", "4M,10,2M", *QUICK, "--out", out]
    code, text, progress = edgefit(words, capfd)
    assert code == 4, progress
    assert text.startswith("3 CASES: 2 held, 1 not reached")
    assert len(taken) == 1
    assert progress.count("Scores of the channels") == 1
    assert "host-macs-2M: Solving for the budget" in progress

    record = json.loads((out / "front.json").read_text())
    assert [(c["name"], c["status"], c["exit_code"]) for c in record["cases"]] == [
        ("host-macs-4M", "done", 0),
        ("host-macs-10", "not reached", 4),
        ("host-macs-2M", "done", 0),
    ]
    names = {case["name"] for case in record["cases"]}
    assert {p.name for p in out.iterdir()} == {"front.json", "front.md", "front.html"} | names
    for case in record["cases"][::2]:
        single = read_record(out / case["name"] / "report.json")
        files = {a["path"] for a in single["result"]["artifacts"]}
        assert {p.name for p in (out / case["name"]).iterdir()} == REPORTS | files
        assert case["cost"] == single["result"]["cost"]
        assert case["cost"]["macs"] <= case["budget"]["macs"]
        assert case["latency"]["p50_ms"] > 0
        assert case["file"]["path"] == chosen_artifact(single)["path"]
    missed = record["cases"][1]
    assert missed["error"]["message"].startswith("budget not reached")
    assert [p.name for p in (out / missed["name"]).iterdir()] == ["best-plan.json"]
    assert read_plan(out / missed["plan"]).cost.macs == missed["cost"]["macs"] > 10
    assert record["originals"][0]["cost"]["macs"] > 4_000_000

    alone = tmp_path / "alone"
    assert edgefit([*words[:2], "--budget-macs", "2M", *QUICK, "--out", alone, "--quiet"], capfd)[0] == 0
    assert read_plan(alone / "plan.json") == read_plan(out / "host-macs-2M" / "plan.json")

    before = contents(work)
    again = [*words[:2], "--budget-macs", "2M,4M", *QUICK, "--out", out, "--quiet", "--json"]
    code, text, errors = edgefit(again, capfd)
    assert (code, errors) == (0, "")
    assert json.loads(text) == json.loads((out / "front.json").read_text())
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"host-macs-2M", "host-macs-4M"}
    assert contents(work) == before, "a finished stage was made anew"


def test_a_case_that_fails_is_an_entry_and_the_others_go_on(digits, tmp_path, capfd, monkeypatch):
    out = tmp_path / "plans"
    words = ["plan", digits[0], "--target", "jetson", "--budget-macs", "4M,2M", "--out", out, "--quiet"]
    assert edgefit(words, capfd)[0] == 0

    def fails_once(run, baseline):
        if run.request.budget.macs == 4_000_000:
            raise ConversionError("the converter gave up", hint="another format")
        return plan_run(run, baseline)

    monkeypatch.setitem(front.JOBS, "plan", fails_once)
    code, text, errors = edgefit(words, capfd)
    assert (code, errors) == (5, "")
    assert "note: jetson-macs-4M: the converter gave up" in text
    failed, done = json.loads((out / "front.json").read_text())["cases"]
    assert (failed["status"], failed["exit_code"], failed["plan"]) == ("failed", 5, None)
    assert failed["error"] == {"message": "the converter gave up", "hint": "another format"}
    assert (done["status"], done["exit_code"]) == ("done", 0)
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"jetson-macs-2M"}, "an old result stands"


def test_targets_that_are_predicted_and_plans(digits, tmp_path, capfd):
    model, _ = digits
    out = tmp_path / "plans"
    words = ["plan", model, "--target", "jetson,traffic-camera:cortex-a72", "--budget-params", "200k,100k"]
    code, text, _ = edgefit([*words, "--out", out, "--quiet"], capfd)
    assert code == 0
    assert text.startswith("4 CASES: 4 planned")
    record = json.loads((out / "front.json").read_text())
    assert [case["name"] for case in record["cases"]] == [
        "jetson-params-200k",
        "jetson-params-100k",
        "traffic-camera-cortex-a72-params-200k",
        "traffic-camera-cortex-a72-params-100k",
    ]
    for case in record["cases"]:
        assert case["latency"] is None
        assert case["predicted"]["low_ms"] < case["predicted"]["ms"] < case["predicted"]["high_ms"]
        assert read_plan(out / case["plan"]).cost.params <= case["budget"]["params"]
        assert any("not verified on the device" in note for note in case["notes"])
    page = (out / "front.html").read_text()
    assert page.count('class="dot before predicted"') == 2
    assert page.count('class="dot after predicted"') == 4


@pytest.mark.parametrize(
    ("targets", "said"),
    [("host,iphone:nokia", "has no variant"), ("host,nowhere", "nowhere"), ("host,host:fast", "no variants")],
)
def test_a_target_that_cannot_be_is_refused_before_the_first_case(targets, said, digits, tmp_path, capfd):
    out = tmp_path / "front"
    words = ["compress", digits[0], "--target", targets, "--budget-ms", "9", *QUICK, "--out", out, "--quiet"]
    code, text, errors = edgefit(words, capfd)
    assert (code, text) == (2, "")
    assert said in errors
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_ours_stays_as_it_is(digits, tmp_path, capfd):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    words = ["plan", digits[0], "--budget-macs", "4M,2M", "--out", tmp_path / "mine", "--quiet"]
    assert edgefit(words, capfd)[0] == 2
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_interrupted_between_cases_the_finished_stand_and_the_rest_follows(digits, tmp_path, capfd):
    model, few = part_of(digits, 240, tmp_path)
    out, work = tmp_path / "front", tmp_path / "front.work"
    words = ["compress", model, "--data", few, "--budget-macs", "4M,2M", "--epochs", "3", *QUICK]
    words = [str(w) for w in (*words, "--batch-size", "8", "--criterion", "magnitude", "--out", out)]
    code, text, progress = interrupted_in_the_second_case(words, out)
    assert (code, text) == (130, ""), progress
    assert "error: fine-tuning interrupted" in progress
    assert "Traceback" not in progress
    cases = json.loads((out / "front.json").read_text())["cases"]
    assert [case["status"] for case in cases] == ["done", "not run yet"]
    first = read_record(out / "host-macs-4M" / "report.json")
    assert not (out / "host-macs-2M").exists()
    assert not list(tmp_path.rglob("*.partial*"))
    done = contents(work)

    assert edgefit([*words, "--quiet"], capfd)[0] == 0
    record = json.loads((out / "front.json").read_text())
    assert [case["status"] for case in record["cases"]] == ["done", "done"]
    again = read_record(out / "host-macs-4M" / "report.json")
    assert (again["training"], again["result"]) == (first["training"], first["result"])
    trained = {p for p in done if p.parent.name.startswith("training-")}
    finished = [p for p in trained if contents(work)[p] == done[p]]
    assert len({p.parent for p in trained}) == 2
    assert len({p.parent for p in finished}) >= 1, "the first case was trained anew"


def interrupted_in_the_second_case(words, out):
    """(exit code, stdout, stderr) of a run that gets a SIGINT while the second case is fine-tuned."""
    work = out.with_name(f"{out.name}.work")
    return interrupted(
        words, out.parent, lambda: len(list(work.glob("training-*/checkpoint.pt"))) == 2, every=0.02
    )
