"""Gates on the input: their price, what they multiply, what is learned, and what becomes of it."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.networks import Chain
from tests.unit.test_train_loop import TOP1, Stop
from toolchain.contracts import Silent
from toolchain.errors import Interrupted
from toolchain.learning import lesson_of
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.program.entrance import MASK, Entrance
from toolchain.prune.plan import Limit
from toolchain.report.saliency import saliency
from toolchain.resources import shape_of
from toolchain.seeing import view_of, watching
from toolchain.train.hard_concrete import BETA, GAMMA, ZETA
from toolchain.train.input_gates import OPEN, SQUARES, InputGates
from toolchain.train.learners import data as joint
from toolchain.train.learning import learn
from toolchain.train.lesson import Verdicts
from toolchain.values import Learning, Training

PRICE = 2.0
SITE = "input: 0"


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )
    return capture(net, (torch.randn(2, 3, 8, 8),), name="net")


def lesson(program):
    channels = analyse(program)
    shape = shape_of(SimpleNamespace(program=program, channels=channels))
    limit = Limit(name="macs", limit=0.6 * cost(program).macs, terms=shape.terms("macs"))
    return watching(lesson_of(program, channels, shape, [limit]), PRICE)


class Free:
    """A network on which nothing presses."""

    def learnable(self):
        return []

    def weights(self, module, *, drawn):
        return {}

    def penalty(self, module, done):
        return None

    def settle(self, module):
        pass

    def state(self):
        return {}

    def restore(self, state):
        assert state == {}

    def verdicts(self, module):
        return Verdicts(scores={}, blocks={})


def gates(program):
    asked = lesson(program)
    return asked, InputGates(asked, Free())


def logits(pressure):
    return {tuple(t.shape): t for group in pressure._optimizer.param_groups for t in group["params"]}


def test_the_price_is_that_of_the_expected_share_that_stays(program):
    asked, pressure = gates(program)
    channels, squares = logits(pressure)[(3,)], logits(pressure)[(8, 8)]
    with torch.no_grad():
        channels.copy_(torch.tensor([3.0, -1.0, 0.5]))
        squares.fill_(4.0)[0, :4] = -2.0

    def open_(log_alpha):
        return 1 / (1 + math.exp(-(log_alpha - BETA * math.log(-GAMMA / ZETA))))

    likely = [open_(v) for v in (3.0, -1.0, 0.5)]
    wanted = PRICE * (sum(likely) / 3 + (60 * open_(4.0) + 4 * open_(-2.0)) / 64)
    found = pressure.penalty(asked.program.module, 0.3)
    assert found.item() == pytest.approx(wanted, rel=1e-6)
    found.backward()
    slope = PRICE / 3 * likely[1] * (1 - likely[1])
    assert float(channels.grad[1]) == pytest.approx(slope, rel=1e-5)


def test_gates_multiply_what_listens_and_squares_multiply_pixels(program):
    asked, pressure = gates(program)
    module, own = asked.program.module, logits(pressure)
    with torch.no_grad():
        own[(3,)].copy_(torch.tensor([8.0, -8.0, 8.0]))
        own[(8, 8)].fill_(8.0)[2, 5] = -8.0
    weights = pressure.weights(module, drawn=False)
    (name,) = [n for n in weights if n != MASK]
    weight = module.get_parameter(name)
    assert torch.equal(weights[name][:, [0, 2]], weight[:, [0, 2]])
    assert weights[name][:, 1].abs().max() == 0
    assert weights[MASK].shape == (1, 1, 8, 8)
    assert weights[MASK].sum() == 63
    assert weights[MASK][0, 0, 2, 5] == 0
    torch.manual_seed(0)
    drawn = [pressure.weights(module, drawn=True)[MASK].detach() for _ in range(300)]
    assert float(torch.stack(drawn).mean(0)[0, 0, 2, 5]) < 0.01


def test_something_of_the_input_always_stays(program):
    asked, pressure = gates(program)
    with torch.no_grad():
        for tensor in logits(pressure).values():
            tensor.fill_(-9.0)
    verdicts = pressure.verdicts(asked.program.module)
    view, refused = view_of(asked.entrance, program, verdicts)
    assert refused == ""
    assert len(view.kept) == 1
    assert view.crop[2:] == (1, 1)


def test_it_goes_on_from_its_state(program):
    asked, pressure = gates(program)
    module = asked.program.module

    def step(pressure, done):
        torch.manual_seed(int(1000 * done))
        x = torch.randn(4, 3, 8, 8)
        out = torch.func.functional_call(module, pressure.weights(module, drawn=True), (x,))
        (out.square().sum() + pressure.penalty(module, done)).backward()
        pressure.settle(module)

    for number in range(4):
        step(pressure, number / 10)
    another = InputGates(asked, Free())
    another.restore(pressure.state())
    for each in (pressure, another):
        step(each, 0.4)
    assert another.verdicts(module) == pressure.verdicts(module)
    assert another.verdicts(module) != InputGates(asked, Free()).verdicts(module)


LEARNING = Learning(method="data", epochs=4, price=PRICE)
TRAINING = Training(batch_size=16, augment=False)


def taught(program, data, folder, progress=None):
    return learn(
        joint.LEARNER, lesson(program), data=data, metric=TOP1, training=TRAINING, learning=LEARNING,
        folder=folder, progress=progress or Silent(),
    )  # fmt: skip


def test_interrupted_and_resumed_it_learns_the_same(program, data, tmp_path):
    before = fingerprint(program)
    whole = taught(program, data, tmp_path / "whole")
    with pytest.raises(Interrupted):
        taught(program, data, tmp_path / "parts", progress=Stop(40))
    again = taught(program, data, tmp_path / "parts")
    assert again.verdicts == whole.verdicts
    assert fingerprint(again.program) == fingerprint(whole.program)
    assert fingerprint(program) == before


def worth(rows):
    return Verdicts(scores={}, blocks={}, inputs={SITE: (3.0, 0.1, 2.0)}, squares=rows)


SEEN = Entrance(shape=(3, 8, 8), flat=False, sites=(), positions={SITE: ((0,), (1,), (2,))}, block=2)
BORDER = ((0.1, 0.1, 0.1, 0.1), (3.0, 4.0, 2.0, 0.1), (2.0, 0.2, 3.0, 0.1), (0.1, 0.1, 0.1, 0.1))


def test_borders_are_cropped_and_squares_within_are_blank(program):
    view, refused = view_of(SEEN, program, worth(BORDER))
    assert (view.kept, view.crop, view.blank, refused) == ((0, 2), (2, 0, 4, 6), ((2, 1),), "")
    assert view.nats == (3.0, 0.1, 2.0)


def test_without_a_crop_the_border_is_blank():
    torch.manual_seed(0)
    chain = capture(Chain(), (torch.randn(2, 3, 8, 8),), name="chain")
    view, refused = view_of(SEEN, chain, worth(BORDER))
    assert view.crop is None
    assert len(view.blank) == 11
    assert "the input keeps its size" in refused


def test_all_of_a_useful_input_stays(program):
    useful = Verdicts(scores={}, blocks={}, inputs={SITE: (3.0, 2.0, 2.0)}, squares=((1.0,) * 4,) * 4)
    assert view_of(SEEN, program, useful) == (None, "")


def test_the_picture_outlines_what_is_kept(program):
    view, _ = view_of(SEEN, program, worth(BORDER))
    record = {**vars(view), "text": "some"}
    picture = saliency(record, alone=True)
    assert picture.count('fill="none"') == 2 + 5
    assert 'xmlns="http' in picture
    flat = replace(view, flat=True, kept=tuple(range(10)), nats=(1.0,) * 192, crop=None, block_nats=())
    assert saliency({**vars(flat), "text": "some"}).count('fill="none"') == 10


def test_gates_start_open(program):
    _, pressure = gates(program)
    assert all(bool((t == OPEN).all()) for t in logits(pressure).values())
    assert set(pressure.state()) == {"gates of the input"}
    assert SQUARES in pressure.state()["gates of the input"][0]
