"""Weights of a cut network are fitted to the original: the least squares, and what they must leave alone."""

import pytest
import torch
from torch import nn

from tests.networks import Grouped, Residual, randomised
from toolchain.program.blocks import blocks, drop
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.rewrite import apply
from toolchain.train.reestimate import adaptive
from toolchain.train.refit import RIDGE, refit


class Pair(nn.Module):
    """Two layers; `copies` makes the second half of the inner units the first half's twins."""

    def __init__(self, *, copies=False, norm=False):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 5, 3, stride=2, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.head = nn.Linear(5, 4)
        if copies:
            with torch.no_grad():
                self.first.weight[4:] = self.first.weight[:4]
                self.first.bias[4:] = self.first.bias[:4]

    def forward(self, x):
        x = self.norm(self.second(torch.relu(self.first(x))))
        return self.head(torch.relu(x).mean((2, 3)))


def prepared(module, keep=None, *, dropped=(), samples=64):
    torch.manual_seed(0)
    x = torch.randn(samples, 3, 8, 8, dtype=torch.float64)
    program = capture(module.double().eval(), (x[:2],), name="net")
    channels = analyse(program)
    keep = {"first": (0, 1, 2, 3)} if keep is None else keep
    cut = drop(apply(program, channels, keep) if keep else program, dropped)
    return program, cut, channels, keep, x


def error(program, network, x):
    with torch.no_grad():
        wished, found = program.module(x), adaptive(network)[0](x)
    return float((found - wished).square().mean() / wished.var())


def test_what_stays_does_the_work_of_removed_twins():
    program, cut, channels, keep, x = prepared(Pair(copies=True))
    fitted = refit(program, cut, channels, keep, (x[:32],))
    assert error(program, fitted.program, x[32:]) < 0.01 * error(program, cut, x[32:])


def test_the_weights_are_those_of_the_least_squares():
    """Inputs, outputs and ridge written out; the whole batch, since it is small."""
    program, cut, channels, keep, x = prepared(Pair())
    found = refit(program, cut, channels, keep, (x,)).program.module
    old, new = dict(program.module.named_parameters()), dict(found.named_parameters())
    with torch.no_grad():
        inner = torch.relu(torch.conv2d(x, old["first.weight"], old["first.bias"], padding=1))
        y = torch.conv2d(inner, old["second.weight"], old["second.bias"], stride=2, padding=1)
        seen = torch.nn.functional.unfold(inner[:, :4], 3, padding=1, stride=2).movedim(1, 2).flatten(0, 1)
        wished = y.flatten(2).movedim(1, 2).flatten(0, 1)
        seen_mean, wished_mean = seen.mean(0), wished.mean(0)
        before = old["second.weight"][:, :4].flatten(1)
        moments = (seen - seen_mean).T @ (seen - seen_mean)
        ridge = RIDGE * moments.diagonal().mean() * torch.eye(36, dtype=torch.float64)
        missing = wished - wished_mean - (seen - seen_mean) @ before.T
        weight = before + (torch.linalg.inv(moments + ridge) @ (seen - seen_mean).T @ missing).T
    torch.testing.assert_close(new["second.weight"].flatten(1), weight)
    torch.testing.assert_close(new["second.bias"], wished_mean - weight @ seen_mean)


def test_batch_norm_makes_up_for_means_and_remembers_the_samples():
    program, cut, channels, keep, x = prepared(Pair(copies=True, norm=True))
    fitted = refit(program, cut, channels, keep, (x,)).program
    assert error(program, fitted, x) < error(program, cut, x)
    network, _ = adaptive(fitted)
    with torch.no_grad():
        network(x)
    for name in ("running_mean", "running_var"):
        remembered, now = fitted.module.get_buffer(f"norm.{name}"), network.get_buffer(f"norm.{name}")
        torch.testing.assert_close(remembered, now)


def test_what_follows_a_dropped_block_makes_up_for_it():
    module = randomised(Residual())
    program = capture(module, (torch.randn(2, 3, 8, 8, dtype=torch.float64),), name="net")
    name = blocks(program)[0].name
    program, cut, channels, keep, x = prepared(module, {}, dropped=[name], samples=512)
    fitted = refit(program, cut, channels, keep, (x[:448],))
    assert not any(weight.startswith(f"{name}.") for weight in fitted.weights)
    assert error(program, fitted.program, x[448:]) < 0.7 * error(program, cut, x[448:])


def test_an_uncut_network_stays_as_it_is():
    program, cut, channels, keep, x = prepared(Pair(), {})
    found = refit(program, cut, channels, keep, (x,)).program.module
    for name, weight in program.module.named_parameters():
        torch.testing.assert_close(dict(found.named_parameters())[name], weight)


def test_nothing_that_was_handed_in_changes():
    program, cut, channels, keep, x = prepared(Pair(norm=True))
    before = [{n: v.clone() for n, v in p.module.state_dict().items()} for p in (program, cut)]
    refit(program, cut, channels, keep, (x,))
    for state, p in zip(before, (program, cut), strict=True):
        for name, value in p.module.state_dict().items():
            assert torch.equal(value, state[name])


def test_grouped_convolutions_are_left_alone():
    program, cut, channels, keep, x = prepared(randomised(Grouped()), {})
    assert refit(program, cut, channels, keep, (x,)).weights == ("a.weight", "head.weight")


@pytest.mark.parametrize("length", [1, 3])
def test_layers_of_tokens_are_fitted(length):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 6)

        def forward(self, x):
            return self.down(torch.tanh(self.up(x)))

    torch.manual_seed(1)
    x = torch.randn(256, length, 6, dtype=torch.float64)
    program = capture(Tokens().double(), (x[:2],), name="net")
    channels, keep = analyse(program), {"up": tuple(range(10))}
    cut = apply(program, channels, keep)
    fitted = refit(program, cut, channels, keep, (x[:192],)).program
    assert error(program, fitted, x[192:]) < 0.5 * error(program, cut, x[192:])
