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
    path = tmp_path_factory.mktemp("blots") / "blots"
    return _trained(model, x, y, path, train=500, parts=5, steps=150, lr=0.02)


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
    path = tmp_path_factory.mktemp("patches") / "patches"
    return _trained(model, x, y, path, train=200, parts=4, steps=40, lr=0.01)


def _trained(model, x, y, path, *, train, parts, steps, lr):
    """(PATH.pt2, PATH.npz): trained on the first `train` samples, part after part, judged on the rest."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    size = train // parts
    for step in range(steps):
        part = slice(step % parts * size, step % parts * size + size)
        optimizer.zero_grad()
        cross_entropy(model(x[part]), y[part]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert (model(x[train:]).argmax(1) == y[train:]).float().mean() > 0.8
    save_program(capture(model, (x[:2],), name=path.name), path.with_suffix(".pt2"))
    arrays = {"x": x[:train], "y": y[:train], "x_val": x[train:], "y_val": y[train:]}
    np.savez(path.with_suffix(".npz"), **{name: value.numpy() for name, value in arrays.items()})
    return path.with_suffix(".pt2"), path.with_suffix(".npz")
