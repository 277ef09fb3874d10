"""A report record such as a compress run writes: fixed numbers, samples from a seeded generator."""

import copy
import random

CONDITIONS = {
    "device": "host",
    "os": "Linux 6.1 x86_64",
    "cpu": "Example CPU @ 2.60GHz",
    "governor": None,
    "frequency_mhz": 2600.0,
    "load": [0.12, 0.2, 0.31],
    "threads": 1,
    "runtime": "onnxruntime",
    "runtime_version": "1.31.1",
    "affinity": [1],
    "max_mhz": 3000.0,
    "boost": None,
}
FLOAT, INT8, SLIM, SLIM_INT8 = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


def measurement(label, sha, precision, p50, runtime="onnxruntime"):
    generator = random.Random(label)
    samples = [[round(p50 * (1 + abs(generator.gauss(0, 0.03))), 5) for _ in range(40)] for _ in range(8)]
    return {
        "label": label,
        "sha256": sha,
        "runtime": runtime,
        "precision": precision,
        "p50_ms": p50,
        "p50_low_ms": round(p50 * 0.985, 4),
        "p50_high_ms": round(p50 * 1.015, 4),
        "p90_ms": round(p50 * 1.06, 4),
        "p90_low_ms": round(p50 * 1.05, 4),
        "p90_high_ms": round(p50 * 1.07, 4),
        "cpu_p50_ms": round(p50 * 0.99, 4),
        "load_ms": 12.0,
        "first_ms": 1.5,
        "samples_ms": samples,
        "conditions": {**CONDITIONS, "runtime": runtime},
    }


def artifact(path, sha, form, precision, size, *, runtime, metric=None, chosen=None):
    entry = {
        "format": form,
        "runtime": runtime,
        "precision": precision,
        "path": path,
        "size_bytes": size,
        "sha256": sha,
        "metric": None if metric is None else {"name": "top1", "value": metric, "samples": 5000},
    }
    return entry if chosen is None else {**entry, "chosen": chosen}


DROPPED = ["layer1.2", "layer2.1"]
WIDTHS = [
    {"layer": f"layer{stage}.{block}.conv{conv}", "before": width, "after": max(width * kept // 16, 4)}
    for stage, width, kept in ((1, 16, 11), (2, 32, 10), (3, 64, 7))
    for block in range(3)
    for conv in (1, 2)
    if f"layer{stage}.{block}" not in DROPPED
]

RECORD = {
    "schema": "edgefit.report/1",
    "tool": {"name": "edgefit", "version": "0.1.0"},
    "created": "2026-01-02T03:04:05+00:00",
    "kind": "compress",
    "request": {"model": "resnet20.pt2", "target": "host", "budget": {"ms": 0.3, "max_drop": 1.0}},
    "model": {
        "name": "resnet20",
        "fingerprint": "0123456789abcdef" * 4,
        "inputs": [{"name": "x", "shape": [None, 3, 32, 32], "dtype": "float32"}],
        "outputs": [{"name": "logits", "shape": [None, 10], "dtype": "float32"}],
    },
    "data": {
        "name": "cifar10",
        "classes": ["cat", "dog"],
        "train": 50000,
        "validation": 5000,
        "skipped": ["train/cat/0017.jpg"],
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "resize": None,
            "source": "default: ImageNet values",
        },
    },
    "target": {"name": "host", "summary": "this machine's CPU"},
    "baseline": {
        "metric": {"name": "top1", "value": 87.74, "samples": 5000},
        "cost": {"macs": 40813184, "params": 269722, "weight_bytes": 1078888, "neurons": 188426},
        "artifacts": [
            artifact("resnet20.onnx", FLOAT, "onnx", "fp32", 1113401, runtime="onnxruntime"),
            artifact("resnet20.int8.onnx", INT8, "onnx", "int8", 325010, runtime="onnxruntime"),
        ],
        "measurements": [
            measurement("resnet20 fp32", FLOAT, "fp32", 0.604),
            measurement("resnet20 int8", INT8, "int8", 0.342),
        ],
        "drops": {"onnxruntime int8": 0.25},
    },
    "plan": {
        "criterion": "taylor",
        "runtime": "onnxruntime",
        "precision": "int8",
        "estimate_ms": 0.281,
        "estimate_source": "layer timings of onnxruntime int8 on host",
        "damage": 3.1,
        "gap": 0.004,
        "dropped": DROPPED,
        "reason": "least damage under the budget (3.35 points before fine-tuning)",
        "cost": {"macs": 18213000, "params": 140200, "weight_bytes": 560800, "neurons": 121000},
        "widths": WIDTHS,
        "candidates": [
            {
                "runtime": "onnxruntime",
                "precision": "int8",
                "estimate_ms": 0.281,
                "damage": 3.35,
                "kept_ratio": 0.52,
                "chosen": True,
                "note": "",
            },
            {
                "runtime": "onnxruntime",
                "precision": "fp32",
                "estimate_ms": 0.285,
                "damage": 11.9,
                "kept_ratio": 0.31,
                "chosen": False,
                "note": "",
            },
            {
                "runtime": "onnxruntime",
                "precision": "mixed",
                "in_float": ["conv1.weight", "linear.weight"],
                "estimate_ms": 0.283,
                "damage": 4.05,
                "kept_ratio": 0.48,
                "chosen": False,
                "note": "",
            },
        ],
    },
    "rounds": [
        {
            "round": 1,
            "estimate_ms": 0.285,
            "measured_ms": 0.312,
            "low_ms": 0.309,
            "high_ms": 0.316,
            "decision": "over: plan again",
        },
        {
            "round": 2,
            "estimate_ms": 0.281,
            "measured_ms": 0.279,
            "low_ms": 0.276,
            "high_ms": 0.283,
            "decision": "held",
        },
    ],
    "predicted": None,
    "training": {
        "epochs": [{"epoch": 1, "loss": 0.4123, "metric": 87.4, "lr": 0.01, "seconds": 93.2, "left": None}],
        "best_epoch": 1,
    },
    "storage": None,
    "result": {
        "metric": {"name": "top1", "value": 87.4, "samples": 5000},
        "cost": {"macs": 18213000, "params": 140200, "weight_bytes": 560800, "neurons": 121000},
        "artifacts": [
            artifact(
                "resnet20.onnx",
                SLIM,
                "onnx",
                "fp32",
                590100,
                runtime="onnxruntime",
                metric=87.4,
                chosen=False,
            ),
            artifact(
                "resnet20.int8.onnx",
                SLIM_INT8,
                "onnx",
                "int8",
                180200,
                runtime="onnxruntime",
                metric=87.3,
                chosen=True,
            ),
            artifact(
                "resnet20.mlpackage", "e" * 64, "coreml", "fp16", 310000, runtime="coreml", chosen=False
            ),
        ],
        "measurements": [
            measurement("original", FLOAT, "fp32", 0.606),
            measurement("slim fp32", SLIM, "fp32", 0.395),
            measurement("slim int8", SLIM_INT8, "int8", 0.28),
        ],
    },
    "checks": [
        {
            "name": "relative error",
            "subject": "resnet20.onnx",
            "status": "pass",
            "value": 8.1e-7,
            "limit": 1e-4,
            "unit": "",
            "detail": "32 inputs",
        },
        {
            "name": "top-1 agreement",
            "subject": "resnet20.int8.onnx",
            "status": "pass",
            "value": 98.1,
            "limit": 97.0,
            "unit": "%",
            "detail": "5000 inputs",
        },
        {
            "name": "Core ML execution",
            "subject": "resnet20.mlpackage",
            "status": "not run",
            "value": None,
            "limit": None,
            "unit": "",
            "detail": "interpreted; not run on Apple hardware",
        },
    ],
    "budget": [
        {
            "name": "ms",
            "limit": 0.3,
            "value": 0.28,
            "low": 0.2758,
            "high": 0.2842,
            "unit": "ms",
            "verdict": "held",
        },
        {
            "name": "max_drop",
            "limit": 1.0,
            "value": 0.44,
            "low": None,
            "high": None,
            "unit": "points",
            "verdict": "held",
        },
    ],
    "verdict": "held",
    "notes": ["1 unreadable images were skipped: train/cat/0017.jpg"],
    "timings": {"export": 14.2, "fine-tune": 93.2, "measure": 41.0},
    "exit_code": 0,
}


def without_data():
    """The same run when no data were given: no metric, no fine-tuning."""
    record = copy.deepcopy(RECORD)
    record["data"] = record["training"] = record["baseline"]["metric"] = record["result"]["metric"] = None
    record["baseline"]["drops"] = {}
    for entry in record["result"]["artifacts"]:
        entry["metric"] = None
    record["budget"] = record["budget"][:1]
    return record


def bench():
    """A record of `edgefit bench`."""
    record = copy.deepcopy(RECORD)
    record.update(
        kind="bench", plan=None, rounds=[], training=None, result=None, checks=[], budget=[], notes=[]
    )
    record["verdict"] = "not measured"
    return record


def plan():
    """A record of `edgefit plan`."""
    record = copy.deepcopy(RECORD)
    record.update(kind="plan", training=None, result=None, checks=[], budget=[], notes=[])
    record["verdict"] = "not measured"
    return record


def replayed():
    """A saved plan carried out, no limit given."""
    record = copy.deepcopy(RECORD)
    record.update(budget=[], notes=[])
    record["plan"].update(reason="replayed from plan.json", candidates=[])
    return record


def stored():
    """A run without a budget whose weights were stored."""
    record = copy.deepcopy(RECORD)
    record.update(budget=[], notes=[], training=None)
    record["plan"].update(reason="no budget: nothing is pruned, weights are stored", candidates=[])
    record["storage"] = {
        "form": "palette:5",
        "sparsity": 0.9,
        "schedule": "agp",
        "run": None,
        "rounding": "nearest",
        "epochs": 2,
        "zeros": 0.9,
        "metric_before": {"name": "top1", "value": 87.74, "samples": 5000},
        "metric_after": {"name": "top1", "value": 87.1, "samples": 5000},
        "files": [
            {
                "path": "resnet20.onnx.stored",
                "size_bytes": 35120,
                "sha256": "f" * 64,
                "restores": "resnet20.onnx",
                "file_bytes": 1100200,
                "original_bytes": 1113401,
                "layers": [
                    {"layer": "conv1.weight", "weights": 432, "values": 31, "zeros": 120, "bytes": 301},
                    {"layer": "linear.weight", "weights": 640, "values": 32, "zeros": 400, "bytes": 350},
                ],
            }
        ],
    }
    return record


def failed():
    """A run whose int8 file disagrees and whose time straddles the limit."""
    record = copy.deepcopy(RECORD)
    record["checks"][1].update(status="fail", value=93.2)
    record["budget"][0].update(value=0.299, low=0.294, high=0.304, verdict="inconclusive")
    record.update(verdict="inconclusive", exit_code=1)
    return record
