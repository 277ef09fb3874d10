"""Calibrated models: choosing among them, predicting with them, and the data files that are shipped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from toolchain import registry
from toolchain.errors import DeviceError, InputError
from toolchain.latency.calibrated import choose, evidence_of, predict, read, variants
from toolchain.latency.operators import Operator
from toolchain.latency.terms import INFERENCE, TERMS
from toolchain.values import Measurement

PREDICTED = [
    name
    for name in registry.names("targets")
    if registry.find("targets", "TARGET", name).calibration is not None
]
CONVOLUTION = Operator(
    layer="a.weight", op="conv", kind="pointwise", macs=10**9, inputs=10**6, outputs=10**6, weights=10**6,
    in_channels=16, out_channels=16, rows=100,
)  # fmt: skip


def shipped(name):
    target = registry.find("targets", "TARGET", name)
    return target, read(target.calibration)


def test_the_asked_targets_are_there():
    assert set(PREDICTED) == {"iphone", "android", "jetson", "traffic-camera"}


@pytest.mark.parametrize("name", PREDICTED)
def test_shipped_models_are_well_formed_and_say_their_sources(name):
    target, known = shipped(name)
    assert known.target == name
    assert len(known.table_sha256) == 64
    runtimes = {r.name: r for r in target.runtimes}
    identities = [(m.variant, m.engine, m.precision, m.threads) for m in known.models]
    assert len(set(identities)) == len(identities)
    for model in known.models:
        assert model.precision in runtimes[model.runtime].precisions
        assert set(model.ms_per) <= {*TERMS, INFERENCE}
        assert model.ms_per
        assert all(value > 0 for value in model.ms_per.values())
        assert 0 < model.interval.low <= 1 <= model.interval.high
        basis = model.evidence
        assert basis.rows == sum(source.rows for source in basis.sources)
        assert basis.networks >= 3
        assert basis.left_out_network is not None
        assert basis.left_out_network <= 0.30
        for source in basis.sources:
            assert source.url.startswith("github.com/")
            assert source.statistic
            assert source.paths
            derived = "inference_results" in source.url
            assert source.label == ("derived, not verified by MLCommons" if derived else "")


@pytest.mark.parametrize("name", PREDICTED)
def test_every_variant_can_be_chosen(name):
    _, known = shipped(name)
    for variant in ("", *variants(known)):
        assert choose(known, variant=variant)
    for variant, reason in known.absent.items():
        with pytest.raises(InputError) as caught:
            choose(known, variant=variant)
        assert caught.value.hint == reason


@pytest.mark.parametrize("name", PREDICTED)
def test_connecting_says_that_there_is_no_driver(name):
    with pytest.raises(DeviceError) as caught:
        registry.find("targets", "TARGET", name).connect()
    assert f"edgefit predict MODEL --target {name}" in caught.value.hint


def test_the_best_founded_model_comes_first_and_wishes_narrow():
    _, known = shipped("traffic-camera")
    found = choose(known, variant="cortex-a72")
    assert {m.variant for m in found} == {"raspberry-pi-4"}
    assert found[0].evidence.networks == max(m.evidence.networks for m in found)
    assert {m.precision for m in choose(known, variant="cortex-a72", precisions=("int8",))} == {"int8"}
    assert {m.runtime for m in choose(known, variant="cortex-a72", runtime="ncnn")} == {"ncnn"}
    assert {m.threads for m in choose(known, variant="cortex-a72", threads=4)} == {4}
    pinned = choose(known, variant="odroid-n2", runtime="litert@2.11.0")
    assert {m.engine for m in pinned} == {"TFLite v2.11.0 (ruy)"}


def test_a_device_may_be_called_as_its_publisher_does():
    _, known = shipped("traffic-camera")
    assert {m.variant for m in choose(known, variant="Odroid N2+ (odroid)")} == {"odroid-n2"}


def test_newer_engines_come_before_older_ones():
    _, known = shipped("traffic-camera")
    assert choose(known, variant="odroid-n2", precisions=("int8",))[0].engine == "TFLite v2.11.0 (ruy)"


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"variant": "odroid-n22"}, "did you mean 'odroid-n2'"),
        ({"variant": "cortex-a72", "runtime": "coreml"}, "there are: raspberry-pi-4"),
        ({"variant": "cortex-a72", "precisions": ("int8-weights",)}, "there are: raspberry-pi-4"),
    ],
)
def test_what_is_not_there_is_said(wish, said):
    _, known = shipped("traffic-camera")
    with pytest.raises(InputError) as caught:
        choose(known, **wish)
    assert said in caught.value.hint


def model_of(**ms_per):
    _, known = shipped("jetson")
    return replace(known.models[0], ms_per={k.replace("_", "."): v for k, v in ms_per.items()}, align=8)


def test_a_prediction_is_the_sum_of_its_parts():
    model = model_of(
        gemm_macs=3.0, pointwise_macs=1.0, weights=0.5, dense_traffic=0.25, calls=100.0, inference=2.0
    )
    found = predict(model, [CONVOLUTION, CONVOLUTION])
    assert found.overhead_ms == 2.0
    assert [s.ms for s in found.shares] == pytest.approx([4.0 + 0.5 + 0.5 + 0.1] * 2)
    assert found.estimate.ms == pytest.approx(2.0 + 2 * 5.1)
    assert found.low_ms == pytest.approx(found.estimate.ms * model.interval.low)
    assert found.high_ms == pytest.approx(found.estimate.ms * model.interval.high)
    assert not isinstance(found.estimate, Measurement)


def test_what_the_evidence_does_not_cover_is_said():
    model = model_of(gemm_macs=3.0)
    model = replace(model, evidence=replace(model.evidence, kinds=("pointwise",), range_ms=(1.0, 10.0)))
    assert predict(model, [CONVOLUTION]).outside == ()
    strange = replace(CONVOLUTION, kind="other", op="fft")
    unseen = replace(CONVOLUTION, kind="softmax")
    warnings = predict(model, [*[CONVOLUTION] * 20, strange, unseen]).outside
    assert [w.split()[0] for w in warnings] == ["no", "operators", "far"]
    assert "softmax" in warnings[0]
    assert "fft" in warnings[1]


def test_evidence_for_records_is_plain():
    _, known = shipped("iphone")
    assert json.loads(json.dumps(evidence_of(known.models[0])))["rows"] > 0


@pytest.mark.parametrize("damage", ["missing", "text", "field", "schema"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, damage):
    path = tmp_path / "x.json"
    record = json.loads(registry.find("targets", "TARGET", "jetson").calibration.read_text())
    if damage == "text":
        path.write_text("{")
    elif damage != "missing":
        record["models" if damage == "field" else "schema"] = "other"
        path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"x\.json"):
        read(path)
