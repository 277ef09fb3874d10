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
