"""LeNet-5 in Caffe's size (431,080 parameters), trained on scikit-learn's digits or on a folder of images.

The digits (8 x 8, shipped inside the wheel) are enlarged to 28 x 28, so that the network is LeNet-5's to the
weight. CIFAR-10's three channels of 32 x 32 make it one of 657,080 parameters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from benchmarks.digits.network import VALIDATION, digits
from toolchain.program.capture import capture, save_program
from toolchain.train.data import open_data
from toolchain.values import Preprocessing, TensorSpec


def lenet(channels: int, size: int) -> nn.Module:
    """Two convolutions of 20 and 50 filters with pooling, two fully connected layers of 500 and 10."""
    left = ((size - 4) // 2 - 4) // 2
    return nn.Sequential(
        *(nn.Conv2d(channels, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(50 * left * left, 500), nn.ReLU(), nn.Linear(500, 10)),
    )


def of_digits(folder: Path, *, epochs: int = 30, seed: int = 0) -> tuple[Path, Path]:
    """LeNet-5 trained on the enlarged digits: (network, data)."""
    x, y = digits()
    large = interpolate(torch.from_numpy(x), (28, 28), mode="bilinear", align_corners=False).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "digits28.npz"
    parts = {
        "x": large[VALIDATION:],
        "y": y[VALIDATION:],
        "x_val": large[:VALIDATION],
        "y_val": y[:VALIDATION],
    }
    np.savez(data, **parts)
    return _trained(folder / "lenet5-digits.pt2", str(data), 1, 28, epochs, seed), data


def of_images(folder: Path, images: Path, *, epochs: int = 15, seed: int = 0) -> tuple[Path, Path]:
    """A LeNet-5 for RGB images of 32 x 32 trained on a folder: (network, data)."""
    folder.mkdir(parents=True, exist_ok=True)
    return _trained(folder / "lenet5-cifar10.pt2", str(images), 3, 32, epochs, seed), images


def _trained(path: Path, data_name: str, channels: int, size: int, epochs: int, seed: int) -> Path:
    """SGD with a one-cycle learning rate; the file as it is where it is there already."""
    if path.exists():
        return path
    torch.manual_seed(seed)
    model, shape = lenet(channels, size), (channels, size, size)
    spec = TensorSpec(name="x", shape=(None, *shape))
    data = open_data(data_name, preprocessing=Preprocessing(), program_inputs=(spec,))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * -(-data.train_size // 64)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.02, total_steps=steps)
    for epoch in range(epochs):
        for (x,), y in data.train(64, seed=seed * 1000 + epoch, augment=channels == 3):
            optimiser.zero_grad()
            cross_entropy(model(x), y).backward()
            optimiser.step()
            rate.step()
    save_program(capture(model.eval(), (torch.zeros(2, *shape),), name=path.stem), path)
    return path
