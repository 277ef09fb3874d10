"""The gates' gradients are those of the definition, the least channels go, and budgets are met in time."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from toolchain.learning import lesson_of
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.prune.plan import Limit
from toolchain.resources import shape_of
from toolchain.train.learners.taylor_iterative import END, LEARNER


class Net(nn.Module):
    """A residual addition, a view of fixed size, a fully connected layer behind it."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * 16, 20), nn.Linear(20, 3)

    def forward(self, x):
        y = torch.relu(self.stem(x))
        y = torch.relu(y + self.inner(y))
        return self.fc2(torch.relu(self.fc1(y.view(-1, 8 * 16))))


def begun(share=0.4):
    torch.manual_seed(0)
    program = capture(Net().eval(), (torch.randn(2, 3, 4, 4),), name="net")
    channels = analyse(program)
    shape = shape_of(SimpleNamespace(program=program, channels=channels))
    limit = Limit(name="macs", limit=share * cost(program).macs, terms=shape.terms("macs"))
    lesson = lesson_of(program, channels, shape, [limit])
    return program.module, LEARNER.begin(lesson), lesson


def step(module, pressure, done, seed=1):
    torch.manual_seed(seed)
    x, y = torch.randn(16, 3, 4, 4), torch.randint(0, 3, (16,))
    weights = pressure.weights(module, drawn=True)
    out = torch.func.functional_call(module, weights, (x,))
    assert pressure.penalty(module, done) is None
    nn.functional.cross_entropy(out, y).backward()
    pressure.settle(module)


def test_a_gates_gradient_is_activation_times_gradient():
    module, pressure, _ = begun()
    step(module, pressure, 0.0)
    torch.manual_seed(1)
    x, y = torch.randn(16, 3, 4, 4), torch.randint(0, 3, (16,))
    network = Net()
    network.load_state_dict(module.state_dict())
    hidden = torch.relu(network.stem(x))
    hidden = torch.relu(hidden + network.inner(hidden))
    wide = torch.relu(network.fc1(hidden.flatten(1)))
    wide.retain_grad()
    nn.functional.cross_entropy(network.fc2(wide), y).backward()
    torch.testing.assert_close(pressure.state()["worth"]["fc1"], (wide * wide.grad).sum(0).abs().detach())


def test_the_budget_is_met_by_and_by_before_the_end_and_the_addition_takes_part():
    module, pressure, lesson = begun()
    used = []
    for number in range(41):
        step(module, pressure, number / 40, seed=number)
        used.append(lesson.usage.exact(pressure.counts(module))[0])
    assert used == sorted(used, reverse=True)
    assert used[0] > 2
    at_end = used[int(END * 40)]
    assert at_end <= 1
    assert used[-1] == at_end, "nothing goes after that"
    drops = [a - b for a, b in pairwise(used)]
    assert max(drops) < 0.35 * (used[0] - at_end), "a few per cent at a time"
    counts = pressure.counts(module)
    assert counts["stem"] < 8, "channels that an addition and a view tie together"
    verdicts = pressure.verdicts(module)
    assert {n: sum(s > 0 for s in scores) for n, scores in verdicts.scores.items()} == counts


def test_the_least_go_first():
    module, pressure, _ = begun(0.7)
    step(module, pressure, 0.0)
    worth = pressure.state()["worth"]
    step(module, pressure, END / 10)
    relative = {n: w / w.norm() for n, w in pressure.state()["worth"].items() if w.norm()}
    assert not relative, "what was known is of the network before the removal"
    gone = {
        n: [u for u, s in enumerate(scores) if s == 0]
        for n, scores in pressure.verdicts(module).scores.items()
    }
    assert any(gone.values())
    for name, units in gone.items():
        lowest = worth[name].argsort()[: len(units) + 2].tolist()
        assert set(units) <= set(lowest)


def test_of_channels_worth_the_same_those_go_first_that_cost_most():
    module, pressure, lesson = begun()
    state = pressure.state()
    pressure.restore({**state, "worth": {n: torch.full_like(w, 1e9) for n, w in state["worth"].items()}})
    before = pressure.counts(module)
    slopes = lesson.usage.slopes({name: float(count) for name, count in before.items()})[0]
    dearest = max(slopes, key=lambda name: slopes[name])
    step(module, pressure, END / 10)
    after = pressure.counts(module)
    assert {name for name in before if after[name] < before[name]} == {dearest}


def test_fully_connected_layers_make_up_for_their_inputs():
    module, pressure, _ = begun(0.7)
    before = module.get_parameter("fc2.weight").detach().clone()
    step(module, pressure, 0.0)
    step(module, pressure, END / 5)
    left = pressure.counts(module)["fc1"]
    assert left < 20
    torch.testing.assert_close(module.get_parameter("fc2.weight").detach(), before * 20 / left)


def test_it_comes_back_from_its_state():
    module, pressure, lesson = begun()
    for number in range(10):
        step(module, pressure, number / 20)
    another = LEARNER.begin(lesson)
    another.restore(pressure.state())
    assert another.verdicts(module) == pressure.verdicts(module)
    assert another.counts(module) == pressure.counts(module)
    step(module, pressure, 0.6)
    assert pytest.approx(another.state()["rounds"]) != pressure.state()["rounds"]
