"""`edgefit predict` through the command line: an estimate that never passes for a measurement."""

import json

import pytest

from toolchain import cli, registry

ENDING = "predicted, not verified on the device"


def predicted(words, capfd):
    code = cli.main(["predict", *map(str, words)])
    return code, *capfd.readouterr()


@pytest.mark.parametrize(
    "target", ["iphone", "iphone:iphone-15-pro", "jetson:orin", "android", "traffic-camera:cortex-a76"]
)
def test_a_prediction_says_what_it_is(target, digits, capfd):
    code, text, errors = predicted([digits[0], "--target", target], capfd)
    assert (code, errors) == (0, "")
    lines = text.splitlines()
    assert lines[0].startswith("PREDICTED  ")
    assert "90 %" in lines[0]
    assert lines[-1] == ENDING
    assert "published latencies" in text
    assert "github.com/" in text
    assert "measured " not in lines[0]


def test_json_has_every_layer_and_the_evidence(digits, capfd):
    words = [digits[0], "--target", "traffic-camera:cortex-a72", "--precision", "int8", "--json"]
    code, text, _ = predicted(words, capfd)
    found = json.loads(text)
    assert code == 0
    assert found["status"] == ENDING
    assert found["low_ms"] < found["predicted_ms"] < found["high_ms"]
    total = found["overhead_ms"] + sum(layer["ms"] for layer in found["layers"])
    assert total == pytest.approx(found["predicted_ms"])
    assert found["precision"] == "int8"
    assert found["target"] == {"name": "traffic-camera", "variant": "raspberry-pi-4", "asked": "cortex-a72"}
    assert {s["label"] for s in found["evidence"]["sources"]} == {"derived, not verified by MLCommons"}
    assert not any(key.startswith(("p50", "measured")) for key in found)


def test_where_a_measurement_is_required_a_prediction_fails(digits, capfd):
    code, text, _ = predicted([digits[0], "--target", "iphone", "--require-measured"], capfd)
    assert code == 1
    assert text.endswith(f"{ENDING}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "host"], "edgefit bench MODEL --target host"),
        (["--target", "iphon"], "did you mean 'iphone'"),
        (["--target", "iphone:iphone-17-pro"], "no neural engine latency of this phone is published"),
        (["--target", "jetson", "--precision", "int8-weights"], "there are: agx-xavier"),
        ([], "--help"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(words, said, digits, capfd):
    code, text, errors = predicted([digits[0], *words], capfd)
    assert (code, text) == (2, "")
    assert errors.startswith("error: ")
    assert said in errors
    assert len(errors.splitlines()) == 2


def test_a_target_without_driver_is_not_measured(digits, capfd):
    assert cli.main(["bench", str(digits[0]), "--target", "jetson", "--quiet"]) == 6
    assert "edgefit predict MODEL --target jetson" in capfd.readouterr().err


def calibrated(words, capfd):
    code = cli.main(["calibrate", *map(str, words)])
    return code, *capfd.readouterr()


def test_measurements_adapt_the_model_and_predictions_use_it(digits, tmp_path, capfd):
    target = "traffic-camera:cortex-a72"
    before = json.loads(predicted([digits[0], "--target", target, "--json"], capfd)[1])["predicted_ms"]
    table, own = tmp_path / "measured.csv", tmp_path / "own.json"
    table.write_text(f"model,ms\n{digits[0]},{3 * before}\n")
    code, text, errors = calibrated([table, "--target", target, "--out", own], capfd)
    assert (code, errors) == (0, "")
    assert text.startswith("CALIBRATED  traffic-camera:raspberry-pi-4")
    words = [digits[0], "--target", "traffic-camera", "--calibration", own]
    found = json.loads(predicted([*words, "--json"], capfd)[1])
    assert 2 * before < found["predicted_ms"] < 3.1 * before
    text = predicted(words, capfd)[1]
    assert "adapted to your device by 1 measurement in measured.csv" in text
    assert text.endswith(f"{ENDING}\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("model,ms\n", "has no measurements"),
        ("a,b\n1,2\n", "no table of measurements"),
        ("model,ms\nnet.pt2,fast\n", "no table of measurements"),
        ("model,ms\nabsent.pt2,3\n", "absent.pt2"),
    ],
)
def test_tables_that_cannot_be_used_are_one_line(content, said, tmp_path, capfd):
    table = tmp_path / "measured.csv"
    if content is not None:
        table.write_text(content)
    code, text, errors = calibrated([table, "--target", "jetson", "--out", tmp_path / "own.json"], capfd)
    assert (code, text) == (2, "")
    assert said in errors
    assert len(errors.splitlines()) <= 2
    assert not (tmp_path / "own.json").exists()


def test_a_model_of_another_target_is_refused(digits, tmp_path, capfd):
    known = registry.find("targets", "TARGET", "iphone").calibration
    code, _, errors = predicted([digits[0], "--target", "jetson", "--calibration", known], capfd)
    assert code == 2
    assert "of the target iphone" in errors
