"""Some of the classes: the head narrowed exactly, the data filtered and counted anew."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks import TOPOLOGIES, randomised
from toolchain.errors import InputError, UnsupportedError
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.program.heads import narrowed_head
from toolchain.train.batches import Part, Samples
from toolchain.train.confusion import IGNORED
from toolchain.train.metric import evaluate, program_runner, resolve
from toolchain.train.selection import numbers_of, select


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 1))

    def forward(self, x):
        return nn.functional.interpolate(self.body(x), scale_factor=2.0, mode="bilinear")


def classifier():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)
    )


@pytest.mark.parametrize("network", [classifier, Segmenter], ids=["classifier", "segmenter"])
def test_outputs_are_those_of_the_classes_wanted(network):
    torch.manual_seed(0)
    program = capture(network().eval(), (torch.randn(2, 3, 8, 8),), name="net")
    before = fingerprint(program)
    found = narrowed_head(program, (1, 4))
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(found.module(x), program.module(x)[:, [1, 4]])
    assert found.outputs[0].shape[:2] == (None, 2)
    assert found.outputs[0].name == program.outputs[0].name
    assert cost(found).params < cost(program).params
    assert {g.name for g in analyse(found).groups} == {g.name for g in analyse(program).groups}
    assert fingerprint(program) == before


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_heads_of_all_topologies_are_narrowed_exactly_or_refused(name):
    made = randomised(TOPOLOGIES[name]())
    x = torch.randn(3, *made.shape, dtype=torch.float64)
    program = capture(made, (x[:2],), name="net")
    shape = program.outputs[0].shape
    if len(shape) < 2 or shape[1] is None or shape[1] < 3:
        pytest.skip("fewer than three classes")
    try:
        found = narrowed_head(program, (0, 2))
    except UnsupportedError:
        pytest.skip("refused: other parts depend on the classes")
    outputs = [m(x) for m in (found.module, program.module)]
    ours, theirs = (o if isinstance(o, torch.Tensor) else o[0] for o in outputs)
    torch.testing.assert_close(ours, theirs[:, [0, 2]], rtol=1e-9, atol=1e-12)


def test_a_softmax_gives_shares_of_the_classes_wanted():
    torch.manual_seed(0)
    program = capture(nn.Sequential(classifier(), nn.Softmax(1)).eval(), (torch.randn(2, 3, 8, 8),), name="n")
    x = torch.randn(4, 3, 8, 8)
    whole = program.module(x)[:, [0, 3]]
    torch.testing.assert_close(narrowed_head(program, (0, 3)).module(x), whole / whole.sum(1, keepdim=True))


@pytest.mark.parametrize("wanted", [(1,), (2, 1), (1, 6), (1, 1)])
def test_what_are_no_classes_is_refused(wanted):
    program = capture(classifier().eval(), (torch.randn(2, 3, 8, 8),), name="net")
    with pytest.raises(InputError, match="no two or more"):
        narrowed_head(program, wanted)


def samples(labels):
    x = np.arange(len(labels), dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    part = Part(fetch=lambda chosen: x[chosen], labels=labels)
    return Samples(
        name="d", classes=("ant", "bee", "cat", "dog"), preprocessing=None, skipped=(), train_part=part,
        validation_part=part, images=False, flips=False, identity="i",
    )  # fmt: skip


def test_data_of_some_classes_are_complete_renumbered_and_in_full_batches():
    labels = np.arange(40) % 4
    data, wanted = select(samples(labels), ("dog", "bee"), ("ant", "bee", "cat", "dog"), 4)
    assert (wanted, data.classes) == ((1, 3), ("bee", "dog"))
    assert (data.train_size, data.validation_size) == (20, 20)
    for batches in (data.train(8, seed=1, augment=False), data.validation(8)):
        found = list(batches)
        assert [len(y) for _, y in found] == [8, 8, 4]
        numbers = torch.cat([x[0][:, 0] for x, _ in found]).long()
        assert sorted(numbers.tolist()) == [n for n in range(40) if n % 4 in (1, 3)]
        assert torch.equal(torch.cat([y for _, y in found]), (numbers % 4 == 3).long())
    inputs, target = data.calibration(6)
    assert sorted(target.tolist()) == [0, 0, 0, 1, 1, 1]
    assert torch.equal(inputs[0][:, 0].long() % 4 == 3, target == 1)
    assert len(data.calibration(100)[1]) == 20
    other, _ = select(samples(labels), ("ant", "bee"), ("ant", "bee", "cat", "dog"), 4)
    assert other.fingerprint() != data.fingerprint()


def test_pixels_of_other_classes_are_passed_over():
    maps = np.zeros((4, 2, 2), np.int64)
    maps[1], maps[2, 0, 0] = 2, 1
    data, _ = select(samples(maps), ("0", "1"), (), 3)
    assert data.train_size == 3, "one image has nothing of either class"
    ((_, target),) = data.validation(8)
    assert set(target.unique().tolist()) <= {0, 1, IGNORED}

    class Always(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, :2, None] * 0 + 1, x[:, :2, None] * 0], 1).expand(-1, -1, 2, 2)

    program = capture(Always(), (torch.randn(2, 3),), name="a")
    pixels = torch.cat([t.flatten() for _, t in data.validation(8)])
    right = float((pixels == 0).sum() / (pixels != IGNORED).sum()) * 100
    assert evaluate(program_runner(program), data, resolve("top1")).value == pytest.approx(right)


@pytest.mark.parametrize(
    ("names", "said"),
    [(("eel", "ant"), "no class 'eel'"), (("ant",), "two classes"), (("ant", "7"), "no class '7'")],
)
def test_classes_that_are_not_there_are_refused(names, said):
    with pytest.raises(InputError, match=said):
        numbers_of(names, ("ant", "bee"), 2)


def test_classes_without_samples_are_refused():
    with pytest.raises(InputError, match="no samples of dog"):
        select(samples(np.arange(30) % 3), ("ant", "dog"), ("ant", "bee", "cat", "dog"), 4)
