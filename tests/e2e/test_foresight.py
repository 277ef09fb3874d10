"""Planning and compressing for a device that is not at hand: predicted, never called measured."""

import json

import pytest

from toolchain import cli
from toolchain.contest import reduce
from toolchain.latency.calibrated import choose, predict
from toolchain.latency.operators import operators
from toolchain.load import load
from toolchain.outlook import known_models
from toolchain.program.channels import analyse
from toolchain.prune.planfile import read_plan
from toolchain.report.record import chosen_artifact, read_record

ENDING = "predicted, not verified on the device"
CAMERA = "traffic-camera:cortex-a72"
CAMERA_WORDS = ["--target", CAMERA]


def edgefit(words, capfd):
    code = cli.main([str(word) for word in (*words, "--quiet")])
    return code, *capfd.readouterr()


def predicted_ms(model, target, capfd, *words):
    found = edgefit(["predict", model, "--target", target, "--json", *words], capfd)[1]
    return json.loads(found)["predicted_ms"]


def test_a_plan_holds_the_budget_by_the_prediction_and_is_carried_out(digits, tmp_path, capfd):
    whole = predicted_ms(digits[0], CAMERA, capfd)
    out, again = tmp_path / "plan", tmp_path / "smaller"
    words = ["plan", digits[0], "--target", CAMERA, "--budget-ms", f"{0.6 * whole:.4f}", "--out", out]
    code, text, errors = edgefit(words, capfd)
    assert (code, errors) == (0, "")
    assert text.endswith(f"{ENDING}\n")
    assert f"--apply {out}/plan.json --target {CAMERA}" in text
    record = read_record(out / "report.json")
    assert 0.5 * whole < record["plan"]["estimate_ms"] <= 0.6 * whole
    assert "published latencies" in record["plan"]["estimate_source"]
    assert record["baseline"]["measurements"] == []

    words = ["plan", digits[0], "--apply", out / "plan.json", "--target", CAMERA, "--out", again]
    code, text, _ = edgefit([*words, "--formats", "tflite"], capfd)
    assert (code, text.endswith(f"{ENDING}\n")) == (0, True)
    result = read_record(again / "report.json")
    assert text.startswith("PLAN CARRIED OUT")
    assert result["result"]["measurements"] == []
    assert chosen_artifact(result)["format"] == "tflite"
    assert result["result"]["cost"]["params"] < record["baseline"]["cost"]["params"]


def test_compress_for_an_iphone_ends_with_what_it_is(digits, tmp_path, capfd):
    whole = predicted_ms(digits[0], "iphone", capfd)
    model, data = digits
    words = ["compress", model, "--data", data, "--target", "iphone", "--budget-ms", f"{1.1 * whole:.5f}"]
    words += [
        "--budget-params",
        "250k",
        "--out",
        tmp_path / "out",
        "--formats",
        "coreml",
        "--require-measured",
    ]
    code, text, _ = edgefit(words, capfd)
    assert code == 1
    assert text.startswith("NOT MEASURED")
    assert text.endswith(f"{ENDING}\n")
    record = read_record(tmp_path / "out" / "report.json")
    artifact = chosen_artifact(record)
    assert (artifact["format"], artifact["precision"]) == ("coreml", "fp16")
    assert record["result"]["metric"]["value"] > 80
    assert record["plan"]["estimate_ms"] < whole
    assert record["result"]["cost"]["params"] <= 250_000
    for page in ("report.md", "report.html"):
        assert ENDING in (tmp_path / "out" / page).read_text()


def test_a_network_under_the_budget_stays_as_it_is(digits, tmp_path, capfd):
    words = ["plan", digits[0], "--target", "jetson", "--budget-ms", "1000", "--out", tmp_path / "plan"]
    code, _, _ = edgefit(words, capfd)
    record = read_record(tmp_path / "plan" / "report.json")
    assert code == 0
    assert all(w["before"] == w["after"] for w in record["plan"]["widths"])
    assert record["plan"]["estimate_ms"] < 1000


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--target", "iphone", "--budget-ms", "0.0001"], 4, "the nearest is predicted"),
        (["--target", "iphone:nokia", "--budget-ms", "1"], 2, "has no variant"),
        (["--target", "host:fast", "--budget-ms", "1"], 2, "has no variants"),
        (["--target", "jetson", "--precision", "int8", "--budget-ms", "1"], 2, "planned for in int8"),
        ([*CAMERA_WORDS, "--precision", "int8", "--budget-ms", "1"], 2, "int8 needs --data"),
        (["--calibration", "absent.json", *CAMERA_WORDS, "--budget-ms", "1"], 2, "absent.json"),
    ],
)
def test_what_cannot_be_planned_is_one_line(words, code, said, digits, tmp_path, capfd):
    found, text, errors = edgefit(["plan", digits[0], *words, "--out", tmp_path / "plan"], capfd)
    assert (found, text) == (code, "")
    assert said in errors
    assert not (tmp_path / "plan").exists()


def test_the_planned_network_is_the_one_predicted(digits, tmp_path, capfd):
    """What compress delivers is predicted by `predict` as the report says."""
    whole = predicted_ms(digits[0], CAMERA, capfd)
    out = tmp_path / "out"
    words = ["compress", digits[0], "--target", CAMERA, "--budget-ms", f"{0.7 * whole:.4f}", "--out", out]
    assert edgefit([*words, "--formats", "onnx"], capfd)[0] == 0
    record = read_record(out / "report.json")
    program = load(digits[0])
    small = reduce(program, analyse(program), read_plan(out / "plan.json"))
    model = choose(known_models("traffic-camera"), variant="cortex-a72", precisions=("fp32",))[0]
    assert predict(model, operators(small)).estimate.ms == pytest.approx(record["plan"]["estimate_ms"])


def test_int8_competes_where_its_file_runs_here_too(digits, tmp_path, capfd):
    """Between the whole network in int8 and in float: int8 alone holds, and is what is delivered."""
    model, data = digits
    whole, int8 = (
        predicted_ms(model, CAMERA, capfd, "--runtime", "litert", "--precision", p) for p in ("fp32", "int8")
    )
    assert int8 < 0.9 * whole
    out = tmp_path / "out"
    words = ["compress", model, "--data", data, *CAMERA_WORDS, "--formats", "tflite", "--epochs", "0"]
    budget = (int8 + whole) / 2
    code, text, errors = edgefit([*words, "--budget-ms", f"{budget:.5f}", "--out", out], capfd)
    assert (code, errors) == (0, "")
    record = read_record(out / "report.json")
    assert (record["plan"]["runtime"], record["plan"]["precision"]) == ("litert", "int8")
    assert "int8 alone" in record["plan"]["reason"]
    assert record["plan"]["estimate_ms"] == pytest.approx(int8)
    assert record["predicted"]["original"]["ms"] == pytest.approx(whole)
    assert text.rstrip().endswith(ENDING)
    assert f"original {whole:.4g} ms" in text
    artifact = chosen_artifact(record)
    assert artifact["precision"] == "int8"
    assert artifact["metric"]["value"] > record["baseline"]["metric"]["value"] - 1
    assert record["result"]["measurements"] == []


def test_under_it_the_least_damaging_precision_is_cut(digits, tmp_path, capfd):
    """Below the whole network in int8 both are planned for; the one that loses less wins."""
    model, data = digits
    int8 = predicted_ms(model, CAMERA, capfd, "--runtime", "litert", "--precision", "int8")
    out = tmp_path / "plan"
    words = ["plan", model, "--data", data, *CAMERA_WORDS, "--budget-ms", f"{0.8 * int8:.5f}", "--out", out]
    assert edgefit(words, capfd)[0] == 0
    record = read_record(out / "report.json")
    rows = {(c["precision"], c["chosen"]): c for c in record["plan"]["candidates"]}
    assert set(rows) == {("int8", True), ("fp32", False)}
    assert rows["int8", True]["damage"] < rows["fp32", False]["damage"]
    plan = read_plan(out / "plan.json")
    assert (plan.precision, bool(plan.keep or plan.dropped)) == ("int8", True)
    small = reduce(load(model), analyse(load(model)), plan)
    known = choose(known_models("traffic-camera"), variant="cortex-a72", precisions=("int8",))[0]
    exact = predict(known, operators(small)).estimate.ms
    assert exact == pytest.approx(record["plan"]["estimate_ms"])
    assert exact <= 0.8 * int8


def test_the_users_own_calibration_is_planned_with(digits, tmp_path, capfd):
    """A device half as fast: its file doubles what everything takes; other targets of the run keep theirs."""
    model, _ = digits
    whole = predicted_ms(model, CAMERA, capfd, "--precision", "fp32")
    table, own = tmp_path / "measured.csv", tmp_path / "own.json"
    table.write_text(f"model,ms\n{model},{2 * whole}\n")
    words = ["calibrate", table, *CAMERA_WORDS, "--precision", "fp32", "--out", own]
    assert edgefit(words, capfd)[0] == 0
    slow = predicted_ms(model, CAMERA, capfd, "--calibration", own)
    assert slow > 1.5 * whole

    out = tmp_path / "plan"
    words = ["plan", model, "--budget-ms", f"{1.2 * whole:.5f}"]
    code, text, _ = edgefit([*words, *CAMERA_WORDS, "--calibration", own, "--out", out], capfd)
    assert code == 0
    record = read_record(out / "report.json")
    assert record["predicted"]["original"]["ms"] == pytest.approx(slow)
    assert 0.5 * whole < record["plan"]["estimate_ms"] <= 1.2 * whole
    assert any(w["after"] < w["before"] for w in record["plan"]["widths"]) or record["plan"]["dropped"]
    assert "adapted to your device" in text

    both = tmp_path / "both"
    words += ["--target", f"jetson,{CAMERA}", "--calibration", own, "--out", both]
    assert edgefit(words, capfd)[0] == 0
    originals = {o["target"]: o for o in json.loads((both / "front.json").read_text())["originals"]}
    assert originals[CAMERA]["predicted"]["ms"] == pytest.approx(slow)

    code, _, errors = edgefit(["plan", model, "--budget-ms", "1", "--calibration", own], capfd)
    assert (code, "of the target traffic-camera" in errors) == (2, True)
