"""Patterns that torchvision's and timm's networks brought to light, each as small as it gets."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.coverage import oracle
from tests.networks import randomised
from toolchain.program.capture import capture
from toolchain.program.channels import analyse


class Net(nn.Module):
    """Stem of 12 channels, a body under test, a head of its 12."""

    def __init__(self, body, **parts):
        super().__init__()
        self.stem, self.last, self.body = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 6, 1), body
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.last(F.relu(self.body(self, F.relu(self.stem(x))))).mean((2, 3))


def fourier(m, x):
    """Positions as sines of several frequencies (EdgeNeXt): a constant of channels divides."""
    place = torch.ones_like(x[:, 0]).cumsum(1)[..., None] / 2.0 ** torch.arange(12, dtype=x.dtype)
    return x + m.mix(place.sin()).permute(0, 3, 1, 2)


def stacked(m, x):
    """Several tensors weighed by a convolution over a stack (CoaT): their channels are its image."""
    tokens = torch.stack([x.flatten(2).mean(2), x.flatten(2).amax(2), x[:, :, 0, 0]], 1)
    return x * m.weigh(tokens).squeeze(1)[:, :, None, None]


def efficient_attention(m, x):
    """A gate that looks at neighbouring channels (ECA): it goes on to see all places, zeros among them."""
    return (
        x
        * torch.sigmoid(m.near(x.mean((2, 3))[:, None]) + m.far(x.mean((2, 3))[:, None])).transpose(1, 2)[
            ..., None
        ]
    )


CASES = {
    "convolution along channels": lambda: Net(
        efficient_attention,
        near=nn.Conv1d(1, 1, 3, padding=1),
        far=nn.Conv1d(1, 1, 5, padding="same", dilation=2),
    ),
    "division by a constant": lambda: Net(fourier, mix=nn.Linear(12, 12)),
    "channels as image of a 1x1 convolution": lambda: Net(stacked, weigh=nn.Conv1d(3, 1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_pruned_equals_masked(name):
    network = randomised(CASES[name]())
    program = capture(network, (torch.randn(2, 3, 8, 8, dtype=torch.float64),), name="net")
    assert any(m.parameter == "stem.weight" for g in analyse(program).groups for m in g.members)
    found = oracle.checks(program)
    assert {check: result["status"] for check, result in found.items()} == dict.fromkeys(
        oracle.BATCHES, "equal"
    ), found
