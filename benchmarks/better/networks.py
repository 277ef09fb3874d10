"""The networks of the comparison, as plain modules: torch-pruning needs modules, Edgefit takes either.

All take images [n, 3, 32, 32] and give logits [n, 10].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad


class _Basic(nn.Module):
    """Two convolutions and a shortcut, parameters named as in the published CIFAR ResNets.

    Where the size changes, the shortcut takes every second pixel and pads zero channels on both sides
    (option A), or is the strided 1 x 1 convolution that does the same and can learn.
    """

    def __init__(self, before: int, after: int, stride: int, *, convolution: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.padding = (after - before) // 2
        self.shortcut = _projection(before, after, stride) if convolution and self.padding else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.padding:
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu(y + x)


def _projection(before: int, after: int, stride: int) -> nn.Sequential:
    """Option A's shortcut as a convolution and a batch norm, exactly equal to it in eval mode."""
    convolution, norm = nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
    place = torch.zeros(after, before, 1, 1)
    shift = (after - before) // 2
    place[torch.arange(before) + shift, torch.arange(before)] = 1.0
    with torch.no_grad():
        convolution.weight.copy_(place)
        norm.running_var.fill_(1.0 - norm.eps)
    return nn.Sequential(convolution, norm)


class ResNet20(nn.Module):
    """Residual network of He et al., 2016, for CIFAR-10: 41 million multiply-accumulates."""

    def __init__(self, *, convolution: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for number in (1, 2, 3):
            before, after = widths[number - 1], widths[number]
            first = _Basic(before, after, 1 if number == 1 else 2, convolution=convolution)
            rest = [_Basic(after, after, 1, convolution=convolution) for _ in range(2)]
            setattr(self, f"layer{number}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(avg_pool2d(x, 8), 1))


def vgg() -> nn.Module:
    """Plain convolutions after Simonyan and Zisserman, 2015, with batch norm."""
    layers: list[nn.Module] = []
    before = 3
    for step in (32, "pool", 64, 64, "pool", 128, 128, "pool", 128):
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(before, step, 3, 1, 1, bias=False), nn.BatchNorm2d(step), nn.ReLU()]
            before = step
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


class _Inverted(nn.Module):
    """Inverted residual with a linear bottleneck."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.same = stride == 1 and before == after
        self.body = nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobilenet() -> nn.Module:
    """Inverted residuals after Sandler et al., 2018, for small images."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    before = 16
    for after, stride, expansion, count in ((24, 2, 2, 1), (24, 1, 4, 1), (40, 2, 4, 3), (80, 1, 4, 2)):
        for number in range(count):
            layers.append(_Inverted(before, after, stride if number == 0 else 1, expansion))
            before = after
    layers += [nn.Conv2d(before, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


NETWORKS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "resnet20": lambda: ResNet20(convolution=False),
    "resnet20-conv": lambda: ResNet20(convolution=True),
    "vgg": vgg,
    "mobilenet": mobilenet,
}
