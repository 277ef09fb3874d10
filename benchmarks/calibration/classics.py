"""Networks of published tables that torchvision and timm lack, from their papers' tables."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_V1: Final = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


def _cbr(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_cbr(inputs, inputs, 3, stride, inputs), _cbr(inputs, outputs, 1))


class MobileNetV1(nn.Module):
    """Howard et al. 2017, table 1; `features` ends before the pooling."""

    def __init__(self, width: float = 1.0, classes: int = 1001) -> None:
        super().__init__()
        last = max(8, int(32 * width))
        blocks: list[nn.Module] = [_cbr(3, last, 3, 2)]
        for outputs, stride in _V1:
            wide = max(8, int(outputs * width))
            blocks.append(_separable(last, wide, stride))
            last = wide
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Heads(nn.Module):
    """SSD heads on several maps: a convolution for boxes and one for classes each, results flattened."""

    def __init__(self, widths: tuple[int, ...], boxes: tuple[int, ...], classes: int, kernel: int) -> None:
        super().__init__()
        self.boxes = nn.ModuleList(
            nn.Conv2d(w, 4 * n, kernel, padding=kernel // 2) for w, n in zip(widths, boxes, strict=True)
        )
        self.scores = nn.ModuleList(
            nn.Conv2d(w, classes * n, kernel, padding=kernel // 2) for w, n in zip(widths, boxes, strict=True)
        )

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        boxes = [h(x).permute(0, 2, 3, 1).flatten(1) for h, x in zip(self.boxes, maps, strict=True)]
        scores = [h(x).permute(0, 2, 3, 1).flatten(1) for h, x in zip(self.scores, maps, strict=True)]
        return torch.cat(boxes, 1), torch.cat(scores, 1)


class MobileNetSSD(nn.Module):
    """SSD 300 on MobileNet v1 with 1x1 heads (Caffe's MobileNet-SSD, and TensorFlow's ssd_mobilenet_v1)."""

    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.features = MobileNetV1().features
        extra = ((1024, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128))
        self.extra = nn.ModuleList(nn.Sequential(_cbr(a, b, 1), _cbr(b, c, 3, 2)) for a, b, c in extra)
        self.heads = Heads((512, 1024, 512, 256, 256, 128), (3, 6, 6, 6, 6, 6), classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for k, block in enumerate(self.features):
            x = block(x)
            if k == 11:
                maps.append(x)
        maps.append(x)
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return self.heads(maps)


class ShuffleUnit(nn.Module):
    """ShuffleNet v1's unit with three groups."""

    def __init__(self, inputs: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        inner = outputs // 4
        branch = outputs - inputs if stride == 2 else outputs
        groups = 1 if first else 3
        self.stride = stride
        self.one = nn.Conv2d(inputs, inner, 1, groups=groups)
        self.three = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner)
        self.two = nn.Conv2d(inner, branch, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.channel_shuffle(self.one(x).relu(), 3)
        y = self.two(self.three(y))
        if self.stride == 2:
            return torch.cat([functional.avg_pool2d(x, 3, 2, 1), y], 1).relu()
        return (x + y).relu()


class ShuffleNetV1(nn.Module):
    """Zhang et al. 2017, table 1, three groups, width 1."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        last = 24
        for outputs, count in ((240, 4), (480, 8), (960, 4)):
            for k in range(count):
                blocks.append(ShuffleUnit(last, outputs, 2 if k == 0 else 1, last == 24))
                last = outputs
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(last, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class CaffeAlexNet(nn.Module):
    """AlexNet with its two groups, 227 pixels (Caffe's network), response normalisation left out."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, 4), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, 1, 2, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(384, 384, 3, 1, 1, groups=2), nn.ReLU(),
            nn.Conv2d(384, 256, 3, 1, 1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, 1000),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class ClipText(nn.Module):
    """CLIP's text tower on 77 tokens: `layers` transformer blocks of width `width`, 64 a head."""

    def __init__(self, width: int, layers: int, mixers: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(49408, width)
        self.blocks = nn.ModuleList(TextBlock(width) for _ in range(layers))
        self.mixers = nn.ModuleList(MixerBlock(width) for _ in range(mixers))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        half = len(self.mixers) // 2
        for mixer in self.mixers[:half]:
            x = mixer(x)
        for block in self.blocks:
            x = block(x)
        for mixer in self.mixers[half:]:
            x = mixer(x)
        return self.projection(self.norm(x)[:, -1])


class TextBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 64
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, 64).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        x = x + self.out(y)
        return x + self.mlp(self.norm2(x))


class MixerBlock(nn.Module):
    """MobileCLIP's convolutional text block, reparameterised: depthwise 1 x 11 mixer and an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, (1, 11), padding=(0, 5), groups=width)
        self.wide = nn.Conv2d(width, width, (1, 11), padding=(0, 5), groups=width)
        self.up, self.down = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(x.transpose(1, 2).unsqueeze(2))
        y = y + self.down(functional.gelu(self.up(self.wide(y))))
        return y.squeeze(2).transpose(1, 2)


class SegmentationNet(nn.Module):
    """EfficientViT with the light head of its paper: three stages summed at stride 8, then residual blocks.

    Cai et al. 2023, as mit-han-lab/efficientvit configures it: `width` and `depth` of the head, `expand` of
    its blocks (1: one 3 x 3 convolution each, of the large models), `final` the widening before the classes.
    """

    def __init__(
        self, backbone: nn.Module, channels: tuple[int, ...], width: int, depth: int, classes: int,
        *, expand: int = 4, final: int | None = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.inputs = nn.ModuleList(_cb(c, width, 1) for c in channels)
        self.blocks = nn.ModuleList(HeadBlock(width, expand) for _ in range(depth))
        last = width * (final or 1)
        self.final = nn.Sequential(_cbh(width, last, 1)) if final else nn.Identity()
        self.scores = nn.Conv2d(last, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)[-3:]
        size = maps[0].shape[-2:]
        y = sum(
            functional.interpolate(conv(m), size=size, mode="bicubic")
            for conv, m in zip(self.inputs, maps, strict=True)
        )
        for block in self.blocks:
            y = y + block(y)
        return self.scores(self.final(y))


def _cb(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


def _cbh(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(*_cb(inputs, outputs, kernel, groups), nn.Hardswish())


class HeadBlock(nn.Module):
    """An inverted residual's branch, or a fused one where `expand` is 1."""

    def __init__(self, width: int, expand: int) -> None:
        super().__init__()
        wide = width * expand
        self.body = (
            nn.Sequential(_cbh(width, wide, 1), _cbh(wide, wide, 3, wide), _cb(wide, width, 1))
            if expand > 1
            else nn.Sequential(_cbh(width, width, 3), _cb(width, width, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class TinyStage(nn.Module):
    """YOLOv4-tiny's cross-stage block: half of the channels through two convolutions; both ends put out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.enter = _cbr(width, width)
        self.first, self.second = _cbr(half, half), _cbr(half, half)
        self.leave = _cbr(width, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.enter(x)
        y = self.first(x.chunk(2, 1)[1])
        z = self.leave(torch.cat([self.second(y), y], 1))
        return functional.max_pool2d(torch.cat([x, z], 1), 2), z


class YoloV4Tiny(nn.Module):
    """Wang et al. 2021 (Scaled-YOLOv4), the tiny network for 80 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_cbr(3, 32, 3, 2), _cbr(32, 64, 3, 2))
        self.stages = nn.ModuleList(TinyStage(width) for width in (64, 128, 256))
        self.neck = nn.Sequential(_cbr(512, 512), _cbr(512, 256, 1))
        self.coarse = nn.Sequential(_cbr(256, 512), nn.Conv2d(512, 255, 1))
        self.up = _cbr(256, 128, 1)
        self.fine = nn.Sequential(_cbr(384, 256), nn.Conv2d(256, 255, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        inner = x
        for stage in self.stages:
            x, inner = stage(x)
        x = self.neck(x)
        up = functional.interpolate(self.up(x), scale_factor=2.0, mode="nearest")
        return self.coarse(x), self.fine(torch.cat([up, inner], 1))
