"""Every method on a residual, a dense, a depthwise and an attention network: to the end, held, and exact."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from tests.colours import colours
from tests.networks import Attention, Dense, Depthwise, Residual
from toolchain import cli, mixing, registry
from toolchain.contest import reduce
from toolchain.program.blocks import drop
from toolchain.program.capture import capture, example_inputs, open_program, save_program
from toolchain.program.channels import analyse
from toolchain.program.connecting import carried, loosened
from toolchain.program.cost import cost
from toolchain.program.entrance import narrowed
from toolchain.program.rewrite import mask
from toolchain.prune.planfile import read_plan
from toolchain.report.record import read_record

NETWORKS = {"residual": Residual, "dense": Dense, "depthwise": Depthwise, "attention": Attention}
METHODS = ("planner", *registry.names("toolchain.train.learners"))
SHARE = 0.6


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return colours(tmp_path_factory.mktemp("colours") / "colours.npz", 360)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("models"), {}
    for name, network in NETWORKS.items():
        torch.manual_seed(0)
        path = folder / f"{name}.pt2"
        save_program(capture(network(), (torch.randn(2, *network.shape),), name=name), path)
        found[name] = path
    return found


def compressed(model, data, out, method, *more, formats="onnx"):
    """The record of a `compress` that has to end well."""
    budget = int(SHARE * cost(open_program(model)).macs)
    words = [model, "--data", data, "--budget-macs", budget, "--method", method, "--method-epochs", "2"]
    words += ["--epochs", "1", "--batch-size", "32", "--precision", "fp32", "--runtime", "onnxruntime"]
    words += ["--formats", formats, "--quiet", "--out", out, *more]
    assert cli.compress([str(word) for word in words]) == 0
    record = read_record(out / "report.json")
    assert record["verdict"] == "held"
    assert record["result"]["cost"]["macs"] <= budget
    assert {check["status"] for check in record["checks"]} <= {"pass", "not run"}
    assert record["request"]["learning"]["method"] == method
    return record


def equals_the_masked_original(model, out):
    """The plan, carried out on the network as handed in, in float64."""
    program, plan = open_program(model), read_plan(out / "plan.json")
    program = replace(program, module=copy.deepcopy(program.module).double())
    if plan.inputs is not None:
        program = narrowed(program, plan.inputs)
    inputs = tuple(x.double() for x in example_inputs(program, 3))
    if plan.connectivity == "mixed":
        program = loosened(program)
        less = drop(program, plan.dropped)
        masked = mask(less, analyse(less), carried(analyse(program), plan.keep, analyse(less)))
    else:
        masked = drop(mask(program, analyse(program), plan.keep), plan.dropped)
    with torch.no_grad():
        found = reduce(program, analyse(program), plan).module(*inputs)
        torch.testing.assert_close(found, masked.module(*inputs), rtol=1e-9, atol=1e-9)
    return plan


def test_methods_end_well_on_small_networks(models, images, tmp_path, capfd):
    record = compressed(models["residual"], images, tmp_path / "out", "l0")
    assert capfd.readouterr().err == ""
    plan = equals_the_masked_original(models["residual"], tmp_path / "out")
    assert plan.criterion == "l0"
    assert any(note.startswith("l0: after 2 epochs") for note in record["notes"])


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_kind_of_network(network, method, models, images, tmp_path):
    formats = "onnx,coreml,tflite" if method == "bar" else "onnx"
    record = compressed(models[network], images, tmp_path / "out", method, formats=formats)
    plan = equals_the_masked_original(models[network], tmp_path / "out")
    assert not plan.changes_nothing
    assert plan.criterion == ("taylor" if method in ("planner", "uniform") else method)
    assert {a["format"] for a in record["result"]["artifacts"]} == set(formats.split(","))


@pytest.mark.slow
def test_a_plan_is_applied_where_files_of_one_sample_are_judged(models, images, tmp_path):
    """The network squeezes all it can, and LiteRT's files have a batch of 1."""
    runtime = ["--runtime", "litert", "--precision", "int8"]
    compressed(models["residual"], images, tmp_path / "out", "planner", *runtime, formats="tflite")
    words = [models["residual"], "--data", images, "--apply", tmp_path / "out/plan.json", *runtime]
    words += ["--formats", "tflite", "--epochs", "0", "--quiet", "--out", tmp_path / "again"]
    assert cli.main(["plan", *map(str, words)]) == 0
    again = read_record(tmp_path / "again/report.json")
    assert {check["status"] for check in again["checks"]} <= {"pass", "not run"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["planner", "bar"])
def test_branches_keep_channels_of_their_own(method, models, images, tmp_path, capfd, monkeypatch):
    """To the end, whatever it costs on so small a network: tied branches are said to cost more."""
    nats, out = iter([2.0, 1.0]), tmp_path / "out"
    monkeypatch.setattr(mixing, "damage_together", lambda *_: next(nats))
    record = compressed(models["residual"], images, out, method, "--connectivity", "always")
    assert capfd.readouterr().err == ""
    said = [note for note in record["notes"] if note.startswith("mixed connectivity: ")]
    assert said == ["mixed connectivity: 1 nats against 2 with tied branches"]
    assert record["plan"]["connectivity"] == "mixed"
    plan = equals_the_masked_original(models["residual"], out)
    again = [models["residual"], "--data", images, "--apply", out / "plan.json", "--formats", "onnx"]
    again += ["--epochs", "0", "--runtime", "onnxruntime", "--precision", "fp32"]
    assert cli.main(["plan", *map(str, again), "--quiet", "--out", str(tmp_path / "again")]) == 0
    replayed = read_record(tmp_path / "again" / "report.json")
    assert replayed["plan"]["connectivity"] == plan.connectivity
    assert replayed["result"]["cost"] == record["result"]["cost"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--connectivity", "mixed"], "there is no --data"),
        (["--connectivity", "mixed", "--data", "DATA", "--schedule", "agp"], "leave one of them out"),
        (["--connectivity", "always", "--data", "DATA", "--allow-resize"], "do not go together"),
        (
            ["--connectivity", "mixed", "--data", "DATA", "--method", "l1l2"],
            "does not learn branch by branch",
        ),
    ],
)
def test_what_branches_cannot_do_is_refused(more, said, models, images, tmp_path, capfd):
    words = [models["residual"], "--budget-macs", "100k", "--out", tmp_path / "out"]
    words += [images if word == "DATA" else word for word in more]
    assert cli.compress([str(word) for word in words]) == 2
    assert said in "".join(capfd.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_plans_of_earlier_versions_tie_branches(models, images, tmp_path, capfd):
    compressed(models["residual"], images, tmp_path / "out", "uniform")
    capfd.readouterr()
    path = tmp_path / "out" / "plan.json"
    record = json.loads(path.read_text())
    assert record.pop("connectivity") == "tied"
    path.write_text(json.dumps(record))
    assert read_plan(path).connectivity == "tied"
