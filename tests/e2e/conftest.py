"""What the end-to-end tests share."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from benchmarks.digits.network import prepare
from tests.boards import board
from toolchain.program.capture import capture, save_program

__all__ = ["board"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A trained CNN and its data: (digits.pt2, digits.npz)."""
    model, data, accuracy = prepare(tmp_path_factory.mktemp("digits"), epochs=2)
    assert accuracy > 80
    return model, data


@pytest.fixture(scope="session")
def blots(tmp_path_factory):
    """A narrow CNN trained on large blots of colour, for which pixels matter less than channels; its data."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(700, 3, 4, 4, generator=random)
    y = torch.arange(700) % 3
    coarse[torch.arange(700), y] *= 2  # the class is the colour with the strongest blots
    x = interpolate(coarse, (16, 16), mode="bilinear")
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(150):
        part = slice(step % 5 * 100, step % 5 * 100 + 100)
        optimizer.zero_grad()
        cross_entropy(model(x[part]), y[part]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert (model(x[500:]).argmax(1) == y[500:]).float().mean() > 0.8
    folder = tmp_path_factory.mktemp("blots")
    save_program(capture(model, (x[:2],), name="blots"), folder / "blots.pt2")
    arrays = {"x": x[:500], "y": y[:500], "x_val": x[500:], "y_val": y[500:]}
    np.savez(folder / "blots.npz", **{name: value.numpy() for name, value in arrays.items()})
    return folder / "blots.pt2", folder / "blots.npz"


class Segmenter(nn.Module):
    """Half the resolution inside, an addition at the full one."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = _block(3, 12), nn.Sequential(_block(12, 24, 2), _block(24, 24))
        self.back, self.head = _block(24, 12), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        fine = self.fine(x)
        coarse = interpolate(self.coarse(fine), scale_factor=2.0, mode="bilinear")
        return self.head(fine + self.back(coarse))


def _block(before, after, stride=1):
    conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


@pytest.fixture(scope="session")
def patches(tmp_path_factory):
    """A small segmenter of noisy patches in four classes, trained for a moment, and its data."""
    random = torch.Generator().manual_seed(0)
    fine = interpolate(torch.randn(300, 4, 4, 4, generator=random), (16, 16), mode="bilinear")
    y = fine.argmax(1)
    x = fine[:, :3] - fine[:, 3:] + 0.3 * torch.randn(300, 3, 16, 16, generator=random)
    torch.manual_seed(0)
    model = Segmenter()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(40):
        part = slice(step % 4 * 50, step % 4 * 50 + 50)
        optimizer.zero_grad()
        cross_entropy(model(x[part]), y[part]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert (model(x[200:]).argmax(1) == y[200:]).float().mean() > 0.8
    folder = tmp_path_factory.mktemp("patches")
    save_program(capture(model, (x[:2],), name="patches"), folder / "patches.pt2")
    arrays = {"x": x[:200], "y": y[:200], "x_val": x[200:], "y_val": y[200:]}
    np.savez(folder / "patches.npz", **{name: value.numpy() for name, value in arrays.items()})
    return folder / "patches.pt2", folder / "patches.npz"
