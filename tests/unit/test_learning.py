"""Pruning while training: it learns, resumes to the bit, ends under its limit, and changes nothing given."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.unit.test_train_loop import TOP1, Stop
from toolchain.contracts import Silent
from toolchain.errors import InputError, Interrupted
from toolchain.learning import lesson_of
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.prune.plan import Limit
from toolchain.resources import shape_of
from toolchain.train.learners import bar
from toolchain.train.learning import learn
from toolchain.train.metric import evaluate, program_runner
from toolchain.values import Learning, Training

TRAINING = Training(batch_size=16)
LEARNING = Learning(method="bar", epochs=8)


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    return capture(net, (torch.randn(2, 3, 8, 8),), name="net")


def lesson(program, share):
    channels = analyse(program)
    shape = shape_of(SimpleNamespace(program=program, channels=channels))
    limit = Limit(name="macs", limit=share * cost(program).macs, terms=shape.terms("macs"))
    return lesson_of(program, channels, shape, [limit], "sigmoid")


def taught(
    program, data, folder, *, share=0.4, progress=None, learning=LEARNING, learner=bar.LEARNER, **more
):
    return learn(
        learner, lesson(program, share), data=data, metric=TOP1, training=TRAINING, learning=learning,
        folder=folder, progress=progress or Silent(), **more,
    )  # fmt: skip


def test_it_learns_under_its_limit_from_labels_alone(program, data, tmp_path):
    """The original has random weights: with it as teacher nothing would be learned."""
    before = fingerprint(program)
    found = taught(program, data, tmp_path / "c", learner=replace(bar.LEARNER, distils=False))
    assert fingerprint(program) == before
    assert len(found.history) == LEARNING.epochs
    assert found.history[0].used[0] > 2
    assert found.history[-1].used[0] < 1.1, "the solver makes up for the rest"
    assert found.history[-1].metric > 80
    assert evaluate(program_runner(found.program), data, TOP1).value == found.history[-1].metric
    assert {n: len(s) for n, s in found.verdicts.scores.items()} == {
        g.name: g.size for g in analyse(program).groups
    }
    assert [tuple(p.shape) for p in found.program.module.parameters()] == [
        tuple(p.shape) for p in program.module.parameters()
    ]


def test_resumed_learning_is_bit_identical(program, data, tmp_path):
    whole = taught(program, data, tmp_path / "a")
    with pytest.raises(Interrupted) as caught:
        taught(program, data, tmp_path / "b", progress=Stop(20))
    assert "--resume --finish" in caught.value.hint
    early = taught(program, data, tmp_path / "b", finish=True)
    assert len(early.history) == 1
    resumed = taught(program, data, tmp_path / "b")
    assert [replace(e, seconds=0) for e in resumed.history] == [replace(e, seconds=0) for e in whole.history]
    assert fingerprint(resumed.program) == fingerprint(whole.program)
    assert resumed.verdicts == whole.verdicts
    again = taught(program, data, tmp_path / "b")
    assert (again.history, again.verdicts) == (resumed.history, resumed.verdicts)
    assert fingerprint(again.program) == fingerprint(whole.program)


def test_ended_before_its_first_epoch_it_has_learned_nothing(program, data, tmp_path):
    assert taught(program, data, tmp_path / "c", finish=True) is None


def test_a_checkpoint_of_other_settings_is_refused(program, data, tmp_path):
    taught(program, data, tmp_path, learning=replace(LEARNING, epochs=1))
    with pytest.raises(InputError, match="belongs to another"):
        taught(program, data, tmp_path)
