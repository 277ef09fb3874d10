"""Weights and statistics of a cut network are put right as asked for, and the report says what was done."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.networks import randomised
from toolchain import repair
from toolchain.closing import Choice
from toolchain.contracts import Silent
from toolchain.damage import damage_together
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.identity import fingerprint
from toolchain.program.rewrite import apply
from toolchain.repair import _batches, repaired
from toolchain.run import Run
from toolchain.stages import Stages
from toolchain.train.refit import Refitted
from toolchain.values import PrunePlan, Training


class Net(nn.Module):
    """A residual addition and a concatenation before the head."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer = (
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 6), (6, 8), (8, 6))
        )
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(14, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        inner = torch.relu(self.inner(x))
        x = torch.relu(x + self.norm(self.outer(inner)))
        return self.head(torch.cat([x, inner], 1).mean((2, 3)))


class Samples:
    train_size = 300

    def __init__(self):
        self.x = torch.randn(300, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()

    def fingerprint(self):
        return "samples"

    def calibration(self, count):
        return (self.x[:count],), torch.arange(len(self.x))[:count] % 3


def prepared(*, rescale="none", reestimate=False, keep=None, work=None):
    program = capture(randomised(Net()), (torch.randn(2, 3, 8, 8, dtype=torch.float64),), name="net")
    channels = analyse(program)
    keep = {"stem": (0, 2, 5), "inner": (1, 7)} if keep is None else keep
    training = Training(batch_size=128)
    request = SimpleNamespace(
        rescale=rescale, reestimate=reestimate, refit=work is not None, training=training
    )
    none = dict.fromkeys(("metric", "target", "device", "material"))
    run = Run(
        request=request,
        program=program,
        channels=channels,
        data=Samples(),
        stages=None if work is None else Stages(root=work),
        progress=Silent(),
        **none,
    )
    plan = PrunePlan(program="", criterion="random", keep=keep)
    cut = apply(program, channels, keep)
    return run, Choice(run=run, plan=plan, program=cut, combination=("", "fp32"), reason="", candidates=())


def test_nothing_is_done_unasked():
    run, choice = prepared()
    assert fingerprint(repaired(run, choice).program) == fingerprint(choice.program)
    assert run.notes == []


def test_an_unpruned_network_stays_as_it_is():
    run, choice = prepared(rescale="all", reestimate=True, keep={})
    assert repaired(run, choice) is choice


@pytest.mark.parametrize(("which", "layers"), [("linear", 1), ("all", 3)])
def test_weights_are_rescaled_by_the_share_of_each_source(which, layers):
    run, choice = prepared(rescale=which)
    found = repaired(run, choice).program.module
    ratio = (found.head.weight / choice.program.module.head.weight)[0]
    torch.testing.assert_close(ratio, torch.tensor([6 / 3] * 3 + [8 / 2] * 2, dtype=torch.float64))
    assert run.notes == [f"weights of {layers} layers rescaled for the inputs they lost"]


def test_nothing_to_rescale_is_said():
    run, choice = prepared(rescale="linear", keep={"inner": tuple(range(8))})
    repaired(run, choice)
    assert run.notes == ["nothing rescaled: no layer in question lost inputs"]


def test_statistics_are_the_averages_of_what_the_cut_network_sees():
    run, choice = prepared(reestimate=True)
    found = repaired(run, choice).program.module
    seen = []
    with torch.no_grad():
        module = choice.program.module
        for (x,), _ in _batches(run.data, 128):
            x = torch.relu(torch.conv2d(x, module.stem.weight, module.stem.bias, padding=1))
            x = torch.relu(torch.conv2d(x, module.inner.weight, module.inner.bias, padding=1))
            seen.append(torch.conv2d(x, module.outer.weight, module.outer.bias, padding=1))
    assert [len(x) for x in seen] == [128, 128, 44]
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.var((0, 2, 3), unbiased=True) for x in seen]).mean(0)
    torch.testing.assert_close(found.norm.running_mean, means)
    torch.testing.assert_close(found.norm.running_var, variances)
    assert run.notes == ["statistics of 1 batch norms estimated anew on 300 training samples"]


def test_the_fitted_network_is_taken_where_it_is_nearer_to_the_original(tmp_path):
    run, choice = prepared(work=tmp_path)
    found = repaired(run, choice).program
    assert damage_together(run, found) < damage_together(run, choice.program)
    assert run.notes[0].startswith("weights of 4 layers fitted to the original: divergence")


def test_a_resumed_run_has_the_same_weights_without_fitting_again(tmp_path, monkeypatch):
    first = repaired(*prepared(work=tmp_path)).program
    monkeypatch.setattr(repair, "refit", None)
    run, choice = prepared(work=tmp_path)
    assert fingerprint(repaired(run, choice).program) == fingerprint(first)
    assert run.notes[0].startswith("weights of 4 layers fitted")


def test_a_fit_that_is_no_better_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(repair, "refit", lambda original, cut, *_: Refitted(program=cut, weights=("x",)))
    run, choice = prepared(work=tmp_path)
    assert fingerprint(repaired(run, choice).program) == fingerprint(choice.program)
    assert "left as they were" in run.notes[0]


@pytest.mark.parametrize(
    ("after", "says"), [(0.89, "weights of 4 layers fitted"), (0.91, "not clearly better")]
)
def test_a_fit_that_wins_little_is_left(after, says, tmp_path, monkeypatch):
    nats = iter((1.0, after))
    monkeypatch.setattr(repair, "damage_together", lambda *_: next(nats))
    run, choice = prepared(work=tmp_path)
    found = repaired(run, choice).program
    assert says in run.notes[0]
    assert (fingerprint(found) == fingerprint(choice.program)) == (after > 0.9)


def test_too_few_samples_say_nothing(tmp_path):
    run, choice = prepared(work=tmp_path)
    run.data.x = run.data.x[:100]
    assert fingerprint(repaired(run, choice).program) == fingerprint(choice.program)
    assert run.notes == ["weights not fitted to the original: fewer than 128 training samples"]


@pytest.mark.parametrize(("spoiled", "says"), [(False, "those learned"), (True, "the original's")])
def test_after_learning_the_nearer_weights_are_the_start(spoiled, says):
    """What learned that unit 0 does the work of unit 1 is nearer; what was spoiled by learning is not."""
    run, choice = prepared(keep={"inner": (0, 2, 3, 4, 5, 6, 7)})
    given, taught = copy.deepcopy(run.program.module), copy.deepcopy(run.program.module)
    for module in (given, taught):
        module.inner.weight.data[1], module.inner.bias.data[1] = module.inner.weight[0], module.inner.bias[0]
    for layer, first in ((taught.outer, 0), (taught.head, 6)):  # the head sees inner's units behind 6 others
        layer.weight.data[:, first] += layer.weight[:, first + 1]
        layer.weight.data[:, first + 1] = 0
    if spoiled:
        taught.head.weight.data *= -5
    whole, learned = replace(run.program, module=given), replace(run.program, module=taught)
    after = replace(run, program=learned, learned_from=whole)
    cut = apply(learned, run.channels, choice.plan.keep)
    found = repaired(after, replace(choice, run=after, program=cut))
    assert run.notes[-1].startswith(f"fine-tuning starts from {says}: ")
    expected = apply(whole, run.channels, choice.plan.keep) if spoiled else cut
    assert fingerprint(found.program) == fingerprint(expected)
    assert found.run.given.module is given
    assert found.run.program.module is (given if spoiled else taught)


@pytest.mark.parametrize(
    ("count", "sizes"), [(9, [4, 5]), (8, [4, 4]), (4, [4]), (5, [5]), (1, [1]), (6, [4, 2])]
)
def test_no_sample_is_left_alone(count, sizes):
    data = SimpleNamespace(calibration=lambda _: ((torch.zeros(count, 2),), torch.zeros(count)))
    assert [len(target) for _, target in _batches(data, 4)] == sizes
