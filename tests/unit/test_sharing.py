"""What the cases of one run share is found once, and is what it would have been for each alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.test_program_blocks import Net
from toolchain import damage
from toolchain.contracts import Silent
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.resources import shape_of
from toolchain.run import Run
from toolchain.stages import Stages
from toolchain.values import Budget, Request


class Samples:
    def __init__(self):
        torch.manual_seed(3)
        self.x, self.y = torch.randn(24, 3, 8, 8), torch.arange(24) % 5

    def calibration(self, count):
        return (self.x[:count],), self.y[:count]

    def fingerprint(self):
        return "samples"


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    program = capture(Net(inplace=True), (torch.randn(2, 3, 8, 8),), name="net")
    request = Request(
        model=Path("m"),
        target="host",
        out=tmp_path / "out",
        budget=Budget(ms=1),
        data="d",
        criterion="taylor",
    )
    none = dict.fromkeys(("metric", "target", "device", "material"))
    stages = Stages(root=tmp_path / "work")
    common = {"data": Samples(), "progress": Silent(), "stages": stages}
    return Run(request=request, program=program, channels=analyse(program), **common, **none)


def test_damages_are_measured_once_whatever_budget_and_target(run, monkeypatch):
    shape = shape_of(run)
    first = damage.measure_damages(run, shape)
    assert first.scale
    assert first.blocks
    fresh = damage._measured(run, shape, damage.criterion_named(run.request))
    assert first == fresh

    monkeypatch.setattr(damage, "_measured", lambda *_: pytest.fail("measured again"))
    other = replace(run.request, budget=Budget(macs=10), target="iphone")
    assert damage.measure_damages(replace(run, request=other), shape) == first


@pytest.mark.parametrize("change", [{"criterion": "magnitude"}, {"seed": 1}])
def test_damages_of_another_question_are_not_taken(run, change):
    shape = shape_of(run)
    first = damage.measure_damages(run, shape)
    other = replace(run, request=replace(run.request, **change))
    folders = set(run.stages.root.iterdir())
    found = damage.measure_damages(other, shape)
    assert set(run.stages.root.iterdir()) > folders
    assert (found == first) == ("seed" in change)


def test_once_is_once_for_a_network_and_a_target(run):
    made = []

    def make():
        made.append(None)
        return len(made)

    assert [run.once("x", make), run.once("x", make), run.once("y", make)] == [1, 1, 2]
    case = replace(run, request=replace(run.request, budget=Budget(ms=0.5)), notes=[], seconds={})
    assert case.once("x", make) == 1
    assert replace(run, request=replace(run.request, target="iphone")).once("x", make) == 3
    torch.manual_seed(1)
    other = capture(Net(inplace=True), (torch.randn(2, 3, 8, 8),), name="net")
    assert replace(run, program=other).once("x", make) == 4
