"""The Core ML benchmark: its order, its table, and what it keeps of a network that fails."""

import time

from benchmarks.coreml.run import child, in_turns
from benchmarks.coreml.table import markdown


def record(**networks):
    return {"environment": {"cores": 2}, "networks": networks, "of": 98}


def file(error, decibels=130.0):
    return {"status": "written", "relative_error": error, "snr_db": decibels, "sample_s": 0.5, "operators": 7}


def test_the_smallest_of_every_family_comes_first():
    assert in_turns(["vgg11", "resnet18", "vgg13", "resnet34", "resnet50"]) == [
        "vgg11",
        "resnet18",
        "vgg13",
        "resnet34",
        "resnet50",
    ]
    assert in_turns(["resnet18", "resnet34", "vgg11"]) == ["resnet18", "vgg11", "resnet34"]


def test_the_table_counts_only_what_is_within_its_limit():
    good = {"original fp32": file(1e-7), "half fp32": file(3e-3), "uneven fp32": {"refused": "operator 'x'"}}
    text = markdown(
        record(
            net={
                "status": "finished",
                "peak_bytes": 2e9,
                "files": {**good, "original fp16": file(1e-3, 39.0)},
            },
            cut={"status": "unfinished", "files": {}, "reason": "not finished within 1 s (at half fp32)"},
        )
    )
    assert "- 2 of 98 torchvision networks run." in text
    assert "original: 1 of 1 within 1e-04, worst 1.0e-07" in text
    assert "pruned (half, uneven): 0 of 2 within 1e-04, worst 3.0e-03" in text
    assert "fp16, random weights: 0 of 1 at least 40 dB, least 39.0 dB" in text
    assert "| net | 7 | 1.0e-07 | 3.0e-03 | no | 39.0 | 0.50 |" in text
    assert "- net, uneven fp32: operator 'x'" in text
    assert "- cut: not finished within 1 s (at half fp32)" in text


def test_what_was_found_before_a_failure_is_kept():
    def work(keep):
        keep({"status": "unfinished", "step": "half fp32", "files": {"original fp32": {}}})
        raise ValueError("broken")

    found = child(work, 60)
    assert (found["status"], found["files"]) == ("unfinished", {"original fp32": {}})
    assert found["reason"].startswith("ValueError: broken")
    assert found["reason"].endswith("(at half fp32)")


def test_a_network_that_takes_too_long_is_stopped():
    found = child(lambda keep: time.sleep(60), 0.2)
    assert found["reason"] == "not finished within 0 s (at capture)"
    assert found["seconds"] < 30
