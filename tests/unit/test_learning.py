"""Pruning while training: it learns, resumes to the bit, ends under its limit, and changes nothing given."""

import math
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
from toolchain.train.learners import bar, l1l2
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
    return lesson_of(program, channels, shape, [limit])


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


def test_epochs_are_kept_and_chosen_from_when_the_limit_is_known(program, data, tmp_path, monkeypatch):
    """Learned once; a wide limit gets the best early epoch, one that no epoch holds the last."""
    monkeypatch.setattr(l1l2, "SHARE", 0.15)
    steps = []
    progress = SimpleNamespace(step=lambda *_: steps.append(1), stage=Silent().stage)
    found = [
        taught(program, data, tmp_path / "c", share=share, learner=l1l2.LEARNER, progress=progress)
        for share in (1.0, 0.8, 0.01)
    ]
    assert len(steps) == LEARNING.epochs * math.ceil(data.train_size / TRAINING.batch_size), "learned again"
    for one in found:
        holding = [epoch for epoch in one.history if max(epoch.used) <= 1]
        if holding:
            best = max(epoch.metric for epoch in holding)
            assert one.taken == max(e.number for e in holding if e.metric == best)
        judged = evaluate(program_runner(one.program), data, TOP1).value
        assert judged == one.history[one.taken - 1].metric, "the network is not that of the epoch taken"
    assert max(found[1].history[found[1].taken - 1].used) <= 1, "no epoch held 80 %: nothing was tried"
    assert found[2].taken == LEARNING.epochs
