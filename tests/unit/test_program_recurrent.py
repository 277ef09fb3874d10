"""LSTM, GRU and RNN: hidden, input and projected widths are cut, whatever the layers and directions."""

import pytest
import torch
from torch import nn

from tests.networks import randomised
from tests.oracle import pruned
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.cost import cost

STEPS, WIDTH, HIDDEN = 5, 8, 6


class Net(nn.Module):
    """Linear, recurrent, linear; the last states are read too."""

    def __init__(self, recurrent, begin=None):
        super().__init__()
        self.rnn = recurrent
        self.output = recurrent.proj_size or recurrent.hidden_size
        both = 2 if recurrent.bidirectional else 1
        self.embed, self.head = nn.Linear(4, WIDTH), nn.Linear(self.output * both, 3)
        self.last = nn.Linear(self.output, 3)
        self.begin = begin

    def forward(self, x):
        y = torch.relu(self.embed(x))
        if self.begin is None:
            y, end = self.rnn(y)
        else:
            y, end = self.rnn(y, self.begin.expand(-1, x.shape[0], -1).contiguous())
        end = end[0] if isinstance(end, tuple) else end
        return self.head(y).mean(1) + self.last(end.mean(0))


class Sequence(nn.Module):
    """Time first, as the layers have it by default; the states are inputs of the network."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, HIDDEN), nn.Linear(HIDDEN, 3)

    def forward(self, x, state):
        y, _ = self.rnn(x.transpose(0, 1), state.transpose(0, 1).contiguous())
        return self.head(y[-1])


def first(kind, **options):
    return kind(WIDTH, HIDDEN, batch_first=True, **options)


CASES = {
    "lstm": (lambda: Net(first(nn.LSTM)), {"embed": WIDTH, "rnn.weight_ih_l0": HIDDEN}),
    "lstm, layers and directions": (
        lambda: Net(first(nn.LSTM, num_layers=2, bidirectional=True, dropout=0.2)),
        {"embed": WIDTH, "rnn.weight_ih_l0": HIDDEN},
    ),
    "lstm, projected": (
        lambda: Net(first(nn.LSTM, num_layers=2, bidirectional=True, proj_size=4)),
        {"embed": WIDTH, "rnn.weight_hr_l0": 4},
    ),
    "gru": (lambda: Net(first(nn.GRU, num_layers=3)), {"embed": WIDTH, "rnn.weight_ih_l0": HIDDEN}),
    "gru, no bias": (
        lambda: Net(first(nn.GRU, bias=False, bidirectional=True)),
        {"embed": WIDTH, "rnn.weight_ih_l0": HIDDEN},
    ),
    "gru, learned beginning": (
        lambda: Net(first(nn.GRU), nn.Parameter(torch.rand(1, 1, HIDDEN))),
        {"embed": WIDTH, "rnn.weight_ih_l0": HIDDEN},
    ),
    "rnn": (lambda: Net(first(nn.RNN)), {"embed": WIDTH, "rnn.weight_ih_l0": HIDDEN}),
    "rnn, relu": (
        lambda: Net(first(nn.RNN, nonlinearity="relu", num_layers=2)),
        {"embed": WIDTH, "rnn.weight_ih_l0": HIDDEN},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_widths_are_cut(name):
    make, expected = CASES[name]
    program = capture(randomised(make()), (torch.randn(2, STEPS, 4, dtype=torch.float64),), name=name)
    assert {g.name: g.size for g in analyse(program).groups} == expected
    for seed in range(3):
        pruned(pruned(program, seed=seed, batch=3), seed=seed, batch=1)


def test_states_handed_in_keep_the_hidden_width():
    x, state = torch.randn(2, STEPS, 4, dtype=torch.float64), torch.randn(2, 1, HIDDEN, dtype=torch.float64)
    program = capture(randomised(Sequence()), (x, state), name="sequence")
    channels = analyse(program)
    assert channels.groups == ()
    reasons = {f.reason for f in channels.frozen if f.parameter == "rnn.weight_hh_l0"}
    assert reasons == {"state: an input of the network"}


def test_multiply_accumulates_of_every_step_are_counted():
    program = capture(Net(first(nn.LSTM)), (torch.randn(2, STEPS, 4),), name="lstm")
    steps = STEPS * (4 * WIDTH + 4 * HIDDEN * (WIDTH + HIDDEN) + 3 * HIDDEN)
    assert cost(program).macs == steps + 3 * HIDDEN


def test_a_cut_recurrent_layer_trains_and_is_captured_again():
    program = capture(randomised(Net(first(nn.LSTM))), (torch.randn(2, STEPS, 4).double(),), name="lstm")
    small = pruned(program, seed=1, batch=2)
    again = capture(small.module, (torch.randn(2, STEPS, 4).double(),), name="again")
    assert analyse(again).groups
    pruned(again, seed=2, batch=4)
    small.module(*example_inputs(small, 2)).sum().backward()
    weight = small.module.get_parameter("rnn.weight_hh_l0")
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) > 0
