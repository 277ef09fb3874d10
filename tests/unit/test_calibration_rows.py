"""The calibration benchmark: names of published tables, which rows belong to whom, and the plot."""

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.calibration.networks import architecture, canonical, family
from benchmarks.calibration.plot import plot
from benchmarks.calibration.report import results_text
from benchmarks.calibration.suites import SUITES, rows_of

ROW = {
    "model": "mobilenet_v2_0.5_160",
    "input": "160x160",
    "params_m": "",
    "macs_g": "",
    "device": "Odroid N2+ (odroid)",
    "chip": "S922X",
    "runtime": "TFLite v2.7.1 (ruy)",
    "accelerator": "CPU",
    "precision": "fp32",
    "threads": "",
    "latency_ms": "12.5",
    "metric": "p50 (MLPerf SingleStream v2.0 open; p90=13 p99=14)",
    "source_repo_or_url": "github.com/mlcommons/inference_results_v2.0",
    "source_path": "x/y",
    "date": "2022-04",
}


@pytest.mark.parametrize(
    ("model", "size", "key"),
    [
        ("mobilenet_v1_0.25_128", "128x128", "mobilenet_v1:0.25@128"),
        ("mobilenetv2_224_35", "224x224", "mobilenet_v2:0.35@224"),
        ("MobileNetV3_small_x0_75", "224x224", "mobilenet_v3_small:0.75@224"),
        ("mobilenet_v3_large_minimalistic_1.0_224", "224x224", "mobilenet_v3_large_minimal@224"),
        ("efficientnet-lite3", "280x280", "efficientnet_lite3@280"),
        ("MobileCLIP2-S2 image encoder", "256x256", "mci2@256"),
        ("MobileCLIP-B text encoder", "1x77 tokens", "text_512@77"),
        ("EfficientViT-B2-seg", "1024x2048", "efficientvit_b2_seg@1024x2048"),
        ("RepViT-M1.5", "224x224", "repvit_m1_5@224"),
        ("ResNet50", "224x224", "resnet50@224"),
        ("somebody's own network", "224x224", None),
    ],
)
def test_published_names_are_public_networks(model, size, key):
    assert canonical(model, size) == key


def test_what_is_left_out_together():
    assert architecture("vgg16_bn@224") == architecture("vgg16@96") == "vgg16"
    assert family("mobilenet_v3_small:1@224") == "mobilenet_v3"
    assert family("efficientnet_lite0@224") != family("efficientnet_b0@224")
    assert family("mnasnet_a1:1@224") != family("mnasnet:1@224")


def rows(**changes):
    return [row for suite in SUITES for row in rows_of(suite, [{**ROW, **changes}])]


def test_a_row_belongs_to_one_suite_and_keeps_its_source():
    (row,) = rows()
    assert (row.key, row.variant, row.precision, row.ms) == (
        "mobilenet_v2:0.5@160",
        "odroid-n2",
        "fp32",
        12.5,
    )
    assert (row.engine, row.statistic) == ("TFLite v2.7.1 (ruy)", "p50, MLPerf SingleStream")
    assert (row.url, row.path, row.date) == (ROW["source_repo_or_url"], "x/y", "2022-04")


def test_suspect_and_foreign_rows_are_left_out():
    assert rows(metric="SUSPECT(floor) p50 (MLPerf)") == []
    assert rows(precision="2 bit palettized") == []
    assert rows(device="a toaster") == []
    assert rows(model="unknown") == []


@pytest.mark.parametrize(
    ("mode", "variant", "engine"),
    [("0", "rockchip-rk3588", "all cores"), ("1", "rockchip-rk3588-little", "little cores"),
     ("2", "rockchip-rk3588", "big cores")],
)  # fmt: skip
def test_clusters_of_one_chip_are_told_apart(mode, variant, engine):
    changes = {"device": "Rockchip RK3588", "runtime": "ncnn benchncnn", "model": "resnet18", "threads": "4"}
    (row,) = rows(**changes, precision="int8", metric=f"avg of 8 loops (min 1, max 2); powersave={mode}")
    assert (row.variant, row.engine, row.threads) == (variant, f"ncnn benchncnn ({engine})", 4)


def test_the_plot_has_every_row_and_the_table_every_model():
    residuals = [
        {"network": "a<b", "ms": 1.0, "predicted": 1.1, "family_unseen": None},
        {"network": "c", "ms": 20.0, "predicted": 15.0, "family_unseen": 30.0},
    ]
    drawn = ElementTree.fromstring(plot([("A & B", 12, residuals)]))
    assert len(drawn.findall(".//{*}circle")) == 2
    evidence = {"networks": 2, "rows": 2, "left_out_network": 0.175, "left_out_family": None}
    model = {"variant": "x", "engine": "e", "runtime": "coreml", "precision": "fp16", "threads": None}
    entries = {
        "iphone": [{**model, "evidence": {**evidence, "interval_coverage": 0.9}, "residuals": residuals}]
    }
    text = results_text(entries)
    assert "| 12 % | 2 | 17.5 % | 50.0 % | 90.0 % |" in text
    assert "| x | e | fp16 | - | 2 | 2 | 17.5 % | - |" in text
