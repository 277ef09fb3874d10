"""A small WideResNet for the comparison of methods, trained on a folder of 32 x 32 images.

    python -m benchmarks.methods.wideresnet --data cifar10 --out models [--depth 16 --width 1 --epochs 3]

Writes OUT/wrn-DEPTH-WIDTH.pt, its weights, and .pt2, an archive, and prints its accuracy.
Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016: pre-activation blocks of two
convolutions, (DEPTH - 4) / 6 of them in each of three groups of 16, 32 and 64 channels times WIDTH.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from benchmarks.better.train import INPUT, save, top1, train
from toolchain.train.data import open_data
from toolchain.values import Preprocessing

PEAK = 0.1
"""Highest learning rate."""


class Block(nn.Module):
    """Norm, ReLU, convolution, twice; where the width changes the shortcut is a convolution of its own."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), _conv(before, after, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(after), _conv(after, after, 3, 1)
        self.shortcut = _conv(before, after, 1, stride) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """Of the block's input, [N, before, H, W]."""
        active = relu(self.bn1(x))
        branch = self.conv2(relu(self.bn2(self.conv1(active))))
        trunk = x if self.shortcut is None else self.shortcut(active)
        return trunk + branch


class WideResNet(nn.Module):
    """Images [N, 3, 32, 32] to 10 logits."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        if (depth - 4) % 6:
            raise SystemExit("--depth must be 4 and a multiple of 6: 10, 16, 22, ...")
        blocks, before = [], 16
        for group, channels in enumerate((16, 32, 64)):
            for number in range((depth - 4) // 6):
                blocks.append(Block(before, channels * width, 2 if group and not number else 1))
                before = channels * width
        self.conv1, self.blocks = _conv(3, 16, 3, 1), nn.Sequential(*blocks)
        self.bn, self.head = nn.BatchNorm2d(before), nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Of images, [N, 3, 32, 32]."""
        logits: Tensor = self.head(relu(self.bn(self.blocks(self.conv1(x)))).mean((2, 3)))
        return logits


def _conv(before: int, after: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    data = open_data(str(flags.data), preprocessing=Preprocessing(), program_inputs=(INPUT,))
    torch.manual_seed(0)
    model = WideResNet(flags.depth, flags.width)
    train(model, data, flags.epochs, PEAK)
    print(f"top-1 {top1(model, data):.2f} %")
    save(model, flags.out / f"wrn-{flags.depth}-{flags.width}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
