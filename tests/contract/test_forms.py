"""Every form of storage, by registry: few values, repeatable, kept in training, nothing changed."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.colours import colours
from toolchain import registry
from toolchain.contracts import Silent
from toolchain.program.capture import capture, fingerprint
from toolchain.program.merging import merged
from toolchain.store.tensors import pack
from toolchain.train.constraint import Shape
from toolchain.train.data import open_data
from toolchain.train.loop import fine_tune
from toolchain.train.metric import resolve
from toolchain.values import Preprocessing, Training

FORMS = registry.names("toolchain.train.forms")
SETTINGS = {"palette": "3", "fixed": "2.4", "ternary": "", "binary": "", "plain": ""}
NAMES = ("0.weight", "3.weight", "6.weight")


def form(name):
    return registry.find("toolchain.train.forms", "FORM", name)


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    return capture(net, (torch.randn(2, 3, 8, 8),), name="net")


@pytest.fixture(scope="module")
def data(program, tmp_path_factory):
    path = colours(tmp_path_factory.mktemp("data") / "d.npz", 120)
    return open_data(str(path), preprocessing=Preprocessing(), program_inputs=program.inputs)


def begun(name, program, **more):
    found = form(name)
    program = program if found.normed else merged(program)
    asked = Shape(setting=found.read(SETTINGS[name]), inner=NAMES, edges=(), sparse=False, **more)
    constraint = found.begin(program, asked)
    start = replace(program, module=copy.deepcopy(program.module))
    constraint.start(start.module)
    return constraint, start


def test_every_form_has_a_setting_here():
    assert set(SETTINGS) == set(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_a_setting_that_it_does_not_take_is_refused(name):
    with pytest.raises(ValueError, match=r"\w"):
        form(name).read("nonsense")


CONSTRAINED = [n for n in FORMS if form(n).begin is not None]


@pytest.mark.parametrize("name", CONSTRAINED)
def test_weights_become_few_repeatably_and_nothing_is_changed(name, program):
    before = fingerprint(program)
    outcomes = []
    for _ in range(2):
        constraint, start = begun(name, program)
        constraint.finish(start.module)
        outcomes.append(fingerprint(start))
    assert outcomes[0] == outcomes[1]
    assert fingerprint(program) == before
    for weight in constraint.weights(start.module).values():
        packed = pack(weight.numpy(), run=form(name).table)
        assert len(packed.payload) < 0.6 * weight.numel() * 4


@pytest.mark.parametrize("name", CONSTRAINED)
def test_what_training_ends_with_is_of_the_form_and_resumes_to_the_bit(name, program, data, tmp_path):
    def tuned(folder, **more):
        constraint, start = begun(name, program)
        found = fine_tune(
            start, teacher=None, data=data, metric=resolve("top1"), folder=tmp_path / folder,
            training=Training(epochs=2, lr=0.05, batch_size=16), progress=Silent(),
            constraint=constraint, **more,
        )  # fmt: skip
        taken = replace(found.program, module=copy.deepcopy(found.program.module))
        constraint.finish(taken.module)
        return found, taken, constraint

    found, taken, constraint = tuned("a")
    assert len(found.history) == 2
    again = replace(taken, module=copy.deepcopy(taken.module))
    constraint.finish(again.module)
    assert fingerprint(again) == fingerprint(taken), "what holds the constraint is not changed by it"
    _, start = begun(name, program)
    assert fingerprint(taken) != fingerprint(start) or found.best_epoch == 0
    _, same, _ = tuned("a", resume=True)
    assert fingerprint(same) == fingerprint(taken)
