"""A small VGG for images of 32 x 32: four convolutions with batch norms, two fully connected layers.

193,178 parameters, 131,000 of them in the first fully connected layer, and 5.3 million multiply-accumulates:
small enough for tables of many trainings on one core.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from toolchain.contracts import Data
from toolchain.program.capture import capture, save_program
from toolchain.train.data import open_data
from toolchain.values import Preprocessing, Program, TensorSpec

SHAPE = (3, 32, 32)


def vgg() -> nn.Sequential:
    """Input [n, 3, 32, 32], output [n, 10]."""
    return nn.Sequential(
        *(*_layer(3, 16), nn.MaxPool2d(2), *_layer(16, 32), nn.MaxPool2d(2)),
        *(*_layer(32, 64), *_layer(64, 64), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def _layer(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()


def fresh(seed: int) -> Program:
    """The network with random weights."""
    torch.manual_seed(seed)
    return capture(vgg().eval(), (torch.zeros(2, *SHAPE),), name="vgg-fresh")


def images(folder: Path) -> Data:
    """The images of a folder with train/ and val/."""
    spec = TensorSpec(name="x", shape=(None, *SHAPE))
    return open_data(str(folder), preprocessing=Preprocessing(), program_inputs=(spec,))


def trained(path: Path, data: Data, *, epochs: int, seed: int = 0) -> Path:
    """The network trained by SGD with a one-cycle learning rate; the file as it is where it is there."""
    if path.exists():
        return path
    torch.manual_seed(seed)
    model = vgg()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * -(-data.train_size // 64)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=steps)
    for epoch in range(epochs):
        for (x,), y in data.train(64, seed=seed * 1000 + epoch, augment=True):
            optimiser.zero_grad()
            cross_entropy(model(x), y).backward()
            optimiser.step()
            rate.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_program(capture(model.eval(), (torch.zeros(2, *SHAPE),), name=path.stem), path)
    return path
