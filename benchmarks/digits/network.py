"""A small residual CNN for scikit-learn's digits (1,797 real 8 x 8 images, shipped inside its wheel)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

VALIDATION = 360
"""Digits kept for judging, the same ones every time."""


class Block(nn.Module):
    """Two convolutions with a shortcut; a strided 1 x 1 convolution where the width changes."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def network() -> nn.Module:
    """Input [n, 1, 8, 8], output [n, 10]; about 8 million multiply-accumulates."""
    return nn.Sequential(
        nn.Conv2d(1, 48, 3, 1, 1, bias=False),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        Block(48, 48, 1),
        Block(48, 96, 2),
        Block(96, 96, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits in a fixed random order: x [1797, 1, 8, 8] in 0-1, y [1797]."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    x = (found.images[order, None] / 16).astype(np.float32)
    return x, found.target[order].astype(np.int64)


def train(x: np.ndarray, y: np.ndarray, *, epochs: int, seed: int = 0) -> nn.Module:
    """The network trained with SGD and a one-cycle learning rate."""
    torch.manual_seed(seed)
    model, batch = network(), 64
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            pick = order[start : start + batch]
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs[pick]), labels[pick]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def prepare(folder: Path, *, epochs: int = 8) -> tuple[Path, Path, float]:
    """Train, and save digits.pt2 and digits.npz in `folder`: (network, data, accuracy in percent)."""
    x, y = digits()
    x_val, y_val = x[:VALIDATION], y[:VALIDATION]
    model = train(x[VALIDATION:], y[VALIDATION:], epochs=epochs)
    with torch.no_grad():
        right = (model(torch.from_numpy(x_val)).argmax(1).numpy() == y_val).mean()
    folder.mkdir(parents=True, exist_ok=True)
    sample = torch.from_numpy(x_val[:4])
    program = torch.export.export(model, (sample,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, folder / "digits.pt2")
    np.savez(folder / "digits.npz", x=x[VALIDATION:], y=y[VALIDATION:], x_val=x_val, y_val=y_val)
    return folder / "digits.pt2", folder / "digits.npz", 100 * float(right)
