"""Several processes that train one network: as one does, whatever their shares of a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_learning import lesson
from torch import nn

from tests.networks import TOPOLOGIES, Residual, randomised
from tests.pairs import helper
from toolchain import registry
from toolchain.contracts import Evidence, Silent
from toolchain.errors import InputError
from toolchain.program.capture import capture, save_program
from toolchain.program.channels import analyse
from toolchain.program.switching import switch
from toolchain.train.batches import share
from toolchain.train.crew import Alone, Job, _carried, _changes, crew, leading
from toolchain.train.data import open_data
from toolchain.train.gradual import Cut, Removal
from toolchain.train.learning import learn
from toolchain.train.loop import fine_tune
from toolchain.train.metric import resolve
from toolchain.train.reduced import Reduced
from toolchain.train.synchronised import Sharing, synchronised
from toolchain.values import Learning, Preprocessing, Training

TOP1, CPU = resolve("top1"), torch.device("cpu")
SETTINGS = Training(epochs=2, lr=0.05, batch_size=16)
COUNT = 65
"""Samples: the last batch is a single one, of which one of two processes has nothing."""


class Whole(nn.Module):
    """A residual network behind a normalisation without scales."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(*list(Residual().blocks))
        self.stem, self.plain = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False, momentum=0.3)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        return self.head(self.inner(self.plain(self.stem(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    return capture(Whole(), (torch.randn(2, 3, 8, 8),), name="whole")


@pytest.fixture(scope="module")
def files(program, tmp_path_factory):
    """(network, samples): noise of which one channel is brighter, the class."""
    folder, random = tmp_path_factory.mktemp("pair"), np.random.default_rng(0)
    y = np.arange(COUNT + 12) % 3
    x = random.integers(0, 120, (len(y), 3, 8, 8))
    x[np.arange(len(y)), y] += 100
    arrays = {"x": x[:COUNT], "y": y[:COUNT], "x_val": x[COUNT:], "y_val": y[COUNT:]}
    kinds = {name: np.uint8 if name[0] == "x" else np.int64 for name in arrays}
    np.savez(folder / "d.npz", **{name: value.astype(kinds[name]) for name, value in arrays.items()})
    save_program(program, folder / "whole.pt2")
    return folder / "whole.pt2", folder / "d.npz"


@pytest.fixture(scope="module")
def data(files, program):
    return open_data(str(files[1]), preprocessing=Preprocessing(), program_inputs=program.inputs)


@pytest.fixture(scope="module")
def alone(program, data, tmp_path_factory):
    """What one process comes to."""
    return trained(program, data, tmp_path_factory.mktemp("alone"))


def trained(program, data, folder):
    """Fine-tuned, cut on the way, and learned with gates: (histories, weights) of each."""
    common = {"data": data, "metric": TOP1, "progress": Silent()}
    tuned = fine_tune(program, teacher=program, training=SETTINGS, folder=folder / "a", **common)
    cut = fine_tune(
        program, teacher=None, training=replace(SETTINGS, schedule="agp"), folder=folder / "b",
        removal=half(program), **common,
    )  # fmt: skip
    learner = registry.find("toolchain.train.learners", "LEARNER", "bar")
    learned = learn(
        learner, lesson(program, 0.5), training=SETTINGS, learning=Learning(method="bar", epochs=2),
        folder=folder / "c", **common,
    )  # fmt: skip
    return [(found.history, found.program.module.state_dict()) for found in (tuned, cut, learned)]


def half(program):
    channels = analyse(program)
    keep = {g.name: tuple(range(max(g.minimum, g.size // 2))) for g in channels.groups if g.size > 1}
    return Removal(
        original=program, channels=channels, final=Cut(keep=keep),
        schedule=registry.find("toolchain.prune.schedules", "SCHEDULE", "agp"),
        criterion=registry.find("toolchain.prune.criteria", "CRITERION", "magnitude"),
        evidence=Evidence(),
    )  # fmt: skip


def gradients(who, program, data, size=SETTINGS.batch_size):
    """Of the first batch and of the last one: (loss, samples, gradients, running statistics)."""
    module = switch(program, training=True)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    teacher, training = switch(program, training=False), replace(SETTINGS, batch_size=size)
    job = Job(module=module, teacher=teacher, data=data, training=training, device=CPU)
    found = []
    for batch in who.batches(job, 5):
        module.zero_grad()
        loss, count = who.backward(job, batch)
        slopes = {name: p.grad.clone() for name, p in module.named_parameters()}
        found.append((loss, count, slopes, {name: b.clone() for name, b in module.named_buffers()}))
    return found[0], found[-1]


def test_two_processes_train_as_one(files, program, data, alone, tmp_path, monkeypatch):
    model, samples = files
    line = ["compress", model, "--data", samples, "--budget-macs", "1k", "--out", tmp_path / "out"]
    with helper(line, monkeypatch) as process, leading():
        crew().ready()
        whole, shared = gradients(Alone(), program, data), gradients(crew(), program, data)
        lone = gradients(Alone(), program, data, 1), gradients(crew(), program, data, 1)
        together = trained(program, data, tmp_path)
    assert process.returncode == 0
    assert lone[0][0][1] == 1, "a batch smaller than the number of processes"
    for one, two in zip((*whole, *lone[0]), (*shared, *lone[1]), strict=True):
        assert one[1] == two[1]
        torch.testing.assert_close(two[0], one[0], rtol=1e-5, atol=0)
        for mine, other in ((two[2], one[2]), (two[3], one[3])):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=2e-6)
    for (history, weights), (known, wanted) in zip(together, alone, strict=True):
        assert [e.number for e in history] == [e.number for e in known]
        torch.testing.assert_close([e.loss for e in history], [e.loss for e in known], rtol=1e-3, atol=0)
        torch.testing.assert_close(weights, wanted, rtol=1e-2, atol=1e-3)


def test_a_process_that_cannot_go_on_is_named(files, tmp_path, monkeypatch):
    model, _ = files
    line = [
        "compress",
        model,
        "--data",
        tmp_path / "no.npz",
        "--budget-macs",
        "1k",
        "--out",
        tmp_path / "out",
    ]
    message = r"process 1 of 2: .*no\.npz"
    with helper(line, monkeypatch) as process, pytest.raises(InputError, match=message), leading():
        crew().ready()
    assert process.returncode == 2


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_kind_of_network_can_be_sent(name):
    import pickle

    made = randomised(TOPOLOGIES[name]()).float()
    module = switch(capture(made, (torch.randn(2, *made.shape),), name=name), training=True)
    there = pickle.loads(pickle.dumps(_carried(module)))
    x = torch.randn(4, *made.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for each in (module, there):
        torch.manual_seed(0)
        found.append(each(x))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    for parameter, value in there.named_parameters():
        assert torch.equal(value, module.get_parameter(parameter))


def test_one_share_is_the_whole_batch():
    """As torch's own batch norm, in value, slopes and running statistics."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(4, momentum=0.2), nn.ReLU(), nn.BatchNorm2d(4, affine=False)).double()
    with torch.no_grad():
        net[0].weight.uniform_(0.5, 2)
        net[0].bias.normal_()
    program = capture(net, (torch.randn(2, 4, 3, 3, dtype=torch.float64),), name="norms")
    modules = [switch(program, training=True) for _ in range(2)]
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
    shared = synchronised(modules[1], Sharing(rank=0, size=1, total=lambda tensor: tensor))
    x = [(5 + 3 * torch.randn(6, 4, 3, 3, dtype=torch.float64)).requires_grad_()]
    x.append(x[0].detach().clone().requires_grad_())
    weights = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    for run, inputs in zip((modules[0], shared), x, strict=True):
        (run(inputs) * weights).sum().backward()
    torch.testing.assert_close(x[1].grad, x[0].grad)
    torch.testing.assert_close(
        [p.grad for p in modules[1].parameters()], [p.grad for p in modules[0].parameters()]
    )
    torch.testing.assert_close(modules[1].state_dict(), modules[0].state_dict())


def test_what_was_done_to_the_samples_is_done_again(data):
    import pickle

    reduced = Reduced(data=Reduced(data=data, size=(6, 6)), size=(4, 4))
    again = data
    for change in reversed(pickle.loads(pickle.dumps(_changes(reduced)))):
        again = change(data=again)
    assert again == reduced
    assert _changes(data) == []


def test_shares_make_up_the_batch(data):
    batches = list(data.train(16, seed=2, augment=True))
    parts = [list(data.train(16, seed=2, augment=True, part=(number, 3))) for number in range(3)]
    for batch, *shares in zip(batches, *parts, strict=True):
        assert torch.equal(torch.cat([s[0][0] for s in shares]), batch[0][0])
        assert torch.equal(torch.cat([s[1] for s in shares]), batch[1])
    assert [share(5, (n, 2)) for n in range(2)] == [slice(0, 2), slice(2, 5)]
