"""Fine-tuning: it learns, resumes to the bit, keeps what is finished, and changes nothing handed in."""

import csv
from dataclasses import replace

import pytest
import torch
from torch import nn

from toolchain.contracts import Silent
from toolchain.errors import InputError, Interrupted
from toolchain.program.capture import capture, fingerprint
from toolchain.train.devices import computing
from toolchain.train.distil import distillation_loss
from toolchain.train.loop import fine_tune, learning_rate
from toolchain.train.metric import evaluate, program_runner, resolve
from toolchain.train.reestimate import reestimate_statistics
from toolchain.train.student import Student
from toolchain.values import Training

TOP1 = resolve("top1")
SETTINGS = Training(epochs=3, lr=0.05, batch_size=32)


class Stop(Silent):
    """Presses Ctrl-C after `steps` steps."""

    def __init__(self, steps):
        self.steps = steps

    def step(self, done, total, note=""):
        if done >= self.steps:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    return capture(net, (torch.randn(2, 3, 8, 8),), name="net")


def tune(program, data, folder, *, progress=None, training=SETTINGS, teacher="same", **more):
    original = program if teacher == "same" else teacher
    return fine_tune(
        program, teacher=original, data=data, metric=TOP1, training=training, folder=folder,
        progress=progress or Silent(), **more,
    )  # fmt: skip


def test_it_learns_from_labels_and_reports_what_it_returns(program, data, tmp_path):
    before = fingerprint(program)
    start = evaluate(program_runner(program), data, TOP1).value
    tuned = tune(program, data, tmp_path / "c", teacher=None)
    assert tuned.best_value > max(start, 80.0)
    assert evaluate(program_runner(tuned.program), data, TOP1).value == tuned.best_value
    assert tuned.best_value == max(start, *(e.metric for e in tuned.history))
    assert len(tuned.history) == 3
    assert fingerprint(program) == before


def test_a_resumed_run_is_bit_identical(program, data, tmp_path):
    whole = tune(program, data, tmp_path / "a")
    with pytest.raises(Interrupted) as caught:
        tune(program, data, tmp_path / "b", progress=Stop(13))
    assert "--resume --finish" in caught.value.hint
    finished = tune(program, data, tmp_path / "b", finish=True)
    assert finished.stopped_early
    assert len(finished.history) == 1
    resumed = tune(program, data, tmp_path / "b", resume=True)
    assert [replace(e, seconds=0) for e in resumed.history] == [replace(e, seconds=0) for e in whole.history]
    assert fingerprint(resumed.program) == fingerprint(whole.program)
    stored = [torch.load(tmp_path / f / "checkpoint.pt", weights_only=True)["weights"] for f in "ab"]
    assert all(torch.equal(stored[0][k], stored[1][k]) for k in stored[0])
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_another_run_or_a_broken_one_is_refused(program, data, tmp_path):
    short = replace(SETTINGS, epochs=1)
    tune(program, data, tmp_path, training=short)
    with pytest.raises(InputError, match="belongs to another"):
        tune(program, data, tmp_path, resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(InputError, match="cannot read the checkpoint"):
        tune(program, data, tmp_path, training=short, resume=True)


def test_a_diverging_run_says_lower_lr(program, data, tmp_path):
    with pytest.raises(InputError) as caught:
        tune(program, data, tmp_path, training=replace(SETTINGS, lr=1e30), teacher=None)
    assert "lower --lr" in caught.value.hint


def test_schedule_rises_then_falls_to_zero():
    rates = [learning_rate(step, 200, 1.0) for step in range(200)]
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_statistics_are_the_average_of_the_batches(program, data):
    batches = list(data.train(90, seed=1, augment=False))
    found = reestimate_statistics(program, batches).module.state_dict()
    conv = program.module.state_dict()
    with torch.no_grad():
        maps = [torch.conv2d(x, conv["0.weight"], conv["0.bias"], padding=1) for (x,), _ in batches]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    variance = torch.stack([m.transpose(0, 1).flatten(1).var(1) for m in maps]).mean(0)
    torch.testing.assert_close(found["1.running_mean"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["1.running_var"], variance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("course", ["cosine", "one-cycle"])
def test_courses_of_the_learning_rate(course):
    rates = [learning_rate(step, 1000, 0.1, course) for step in range(1000)]
    top = {"cosine": 49, "one-cycle": 300}[course]
    assert max(rates) == pytest.approx(0.1, rel=1e-3)
    assert abs(rates.index(max(rates)) - top) <= 1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top + 1 :] == sorted(rates[top + 1 :], reverse=True)
    assert rates[0] == pytest.approx({"cosine": 0.1 / 50, "one-cycle": 0.1 / 25}[course])
    assert rates[-1] < 1e-5


def test_the_moving_average_is_what_is_judged_and_resumes_to_the_bit(program, data, tmp_path):
    averaged = replace(SETTINGS, average=0.9)
    whole = tune(program, data, tmp_path / "a", training=averaged)
    assert fingerprint(whole.program) != fingerprint(tune(program, data, tmp_path / "x").program)
    assert evaluate(program_runner(whole.program), data, TOP1).value == whole.best_value
    with pytest.raises(Interrupted):
        tune(program, data, tmp_path / "b", training=averaged, progress=Stop(13))
    resumed = tune(program, data, tmp_path / "b", training=averaged, resume=True)
    assert fingerprint(resumed.program) == fingerprint(whole.program)
    assert [e.metric for e in resumed.history] == [e.metric for e in whole.history]


def test_the_average_is_that_of_its_definition(program):
    student = Student(program, replace(SETTINGS, average=0.9), torch.device("cpu"))
    name, weight = next(iter(student.module.named_parameters()))
    found = None
    for step in range(30):
        with torch.no_grad():
            weight.add_(torch.randn_like(weight))
        student.average(step)
        keep = min(0.9, (1 + step) / (10 + step))
        found = weight.clone() if found is None else keep * found + (1 - keep) * weight
    torch.testing.assert_close(student.averages[name], found.detach())
    torch.testing.assert_close(student.judged().get_parameter(name).detach(), found.detach())


def test_smoothed_labels_are_a_mixture_with_all_classes():
    logits, target = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    plain = distillation_loss((logits,), None, target, temperature=4, weight=0)
    even = -logits.log_softmax(1).mean()
    smoothed = distillation_loss((logits,), None, target, temperature=4, weight=0, smoothing=0.2)
    torch.testing.assert_close(smoothed, 0.8 * plain + 0.2 * even)


def test_gradients_are_clipped_at_the_norm_asked_for(program, data, tmp_path):
    """With steps next to nothing the weights stay next to where they were."""
    still = tune(program, data, tmp_path / "a", training=replace(SETTINGS, clip=1e-9, weight_decay=0.0))
    moved = tune(program, data, tmp_path / "b")
    before = dict(program.module.named_parameters())

    def way(found):
        return max(
            float((p - before[n]).detach().abs().max()) for n, p in found.program.module.named_parameters()
        )

    assert way(still) < 1e-5 < 1e-2 < way(moved)


def test_every_epoch_is_a_line_of_the_log(program, data, tmp_path):
    log = tmp_path / "logs" / "run.csv"
    found = tune(program, data, tmp_path / "c", training=replace(SETTINGS, log=log))
    rows = list(csv.DictReader(log.open()))
    assert [(r["part"], r["epoch"], r["of"]) for r in rows] == [
        ("fine-tuning", str(n), "3") for n in (1, 2, 3)
    ]
    assert [float(r["metric"]) for r in rows] == pytest.approx([e.metric for e in found.history], rel=1e-5)
    tune(program, data, tmp_path / "c", training=replace(SETTINGS, log=tmp_path / "other.csv"), resume=True)
    assert not (tmp_path / "other.csv").exists(), "nothing was left to train; another log is the same run"
    with pytest.raises(InputError, match="cannot write --log"):
        tune(program, data, tmp_path / "d", training=replace(SETTINGS, log=tmp_path))


def test_half_precision_only_where_a_gpu_has_it():
    assert not computing(torch.device("cpu"), half=True)._enabled
