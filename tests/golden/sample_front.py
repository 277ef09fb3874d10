"""A record of several cases in one run, made from the fixed records of single runs."""

import copy

import sample_record

from toolchain.report import front_record

HOST, PHONE = "host", "iphone:iphone-13"


def predicted_record():
    """The same network for a device that is not at hand: nothing was measured."""
    record = copy.deepcopy(sample_record.RECORD)
    record["request"]["target"] = PHONE
    record["baseline"].update(measurements=[], artifacts=[])
    record["result"]["measurements"] = []
    record["result"]["artifacts"] = [{**record["result"]["artifacts"][2], "chosen": True}]
    record["predicted"] = {
        "original": {"ms": 0.91, "low_ms": 0.75, "high_ms": 1.12, "source": "26 published latencies"},
        "result": {"ms": 0.62, "low_ms": 0.51, "high_ms": 0.77, "source": "26 published latencies"},
    }
    record.update(verdict="not measured", notes=[*record["notes"], "predicted, not verified on the device"])
    record["budget"] = [{**record["budget"][0], "value": None, "low": None, "high": None}]
    return record


def waiting(target, **limits):
    folder = target.replace(":", "-") + "".join(f"-{name}-{value:g}" for name, value in limits.items())
    return front_record.waiting(folder, target, {**limits, "max_drop": 1.0})


def missed(entry, status, code, message):
    error = {"message": message, "hint": "raise the budget"}
    return entry | {"status": status, "exit_code": code, "error": error}


def cases():
    best = {
        "latency": {"p50_ms": 0.051, "p50_low_ms": 0.0502, "p50_high_ms": 0.0523},
        "cost": {"macs": 3192000, "params": 12200, "weight_bytes": 48800, "neurons": 9000},
        "runtime": "onnxruntime",
        "precision": "int8",
        "plan": "host-ms-0.02/best-plan.json",
    }
    unreachable = missed(
        waiting(HOST, ms=0.02), "not reached", 4, "budget 0.02 ms not reached on host: 0.0510 ms"
    )
    return [
        front_record.done(waiting(HOST, ms=0.3), sample_record.RECORD) | {"seconds": 148.0},
        front_record.done(waiting(HOST, ms=0.25), sample_record.failed()),
        unreachable | best,
        front_record.done(waiting(PHONE, ms=0.7), predicted_record()),
        missed(waiting(PHONE, ms=0.3), "failed", 5, "Core ML refused | the network"),
    ]


def of(kind, entries, originals):
    one = sample_record.RECORD
    return {
        "schema": front_record.SCHEMA,
        **{name: one[name] for name in ("tool", "created", "model", "data")},
        "kind": kind,
        "request": {"model": "resnet20.pt2"},
        "originals": [front_record.original(record) for record in originals],
        "cases": entries,
        "timings": {"capture": 3.1, "measure": 22.0},
        "seconds": 300.0,
        "exit_code": front_record.exit_code(entries),
    }


def front():
    """Held, inconclusive with a failed check, not reached, predicted, failed."""
    return of("compress", cases(), [{**sample_record.bench()}, predicted_record()])


def interrupted():
    """The first case is done, the second was not run."""
    return of("compress", [cases()[0], waiting(HOST, ms=0.25)], [sample_record.bench()])


def plans():
    """Of `edgefit plan`: measured while planning, and not measured at all."""
    counted = sample_record.plan()
    counted["rounds"] = []
    counted["plan"]["estimate_ms"] = None
    entries = [
        front_record.done(waiting(HOST, ms=0.3), sample_record.plan()),
        front_record.done(waiting(HOST, macs=20000000), counted),
    ]
    return of("plan", entries, [sample_record.bench()])
