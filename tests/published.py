"""Families of published networks that torchvision lacks, small, with the details that break pruning tools.

`heads` names the layers whose output channels are outputs of the network and therefore stay.
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


def conv_norm(before, after, kernel, stride=1, padding=0):
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)
    )


class HighwayLayer(nn.Module):
    """y = H(x) T(x) + x (1 - T(x)): plain channels and gates exist together with the input's."""

    def __init__(self, plain, gate):
        super().__init__()
        self.plain, self.gate = plain, gate
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x):
        carry = torch.sigmoid(self.gate(x))
        return F.relu(self.plain(x)) * carry + x * (1 - carry)


class Highway(nn.Module):
    """Convolutional, then fully connected highway layers (Srivastava et al. 2015)."""

    shape, heads = (3, 9, 9), ("head",)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.convs = nn.Sequential(*(HighwayLayer(*(self._conv() for _ in range(2))) for _ in range(2)))
        self.into = nn.Linear(10 * 4 * 4, 14)
        self.dense = nn.Sequential(*(HighwayLayer(nn.Linear(14, 14), nn.Linear(14, 14)) for _ in range(3)))
        self.head = nn.Linear(14, 5)

    def _conv(self):
        return nn.Conv2d(10, 10, 3, padding=1)

    def forward(self, x):
        x = F.max_pool2d(self.convs(F.relu(self.stem(x))), 2)
        return F.log_softmax(self.head(self.dense(torch.tanh(self.into(x.view(-1, 160))))), 1)


class PreActivation(nn.Module):
    """Norm and activation come first; a projection reads the activated input, an identity the raw one."""

    def __init__(self, before, after, stride, dropout=0.0):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(after), nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.drop = nn.Dropout(dropout)
        self.short = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x):
        active = F.relu(self.bn1(x))
        if self.short is not None:
            x = self.short(active)
        return self.conv2(self.drop(F.relu(self.bn2(self.conv1(active))))) + x


class PreActResNet(nn.Module):
    """Pre-activation ResNet (He et al. 2016)."""

    shape, heads = (3, 11, 11), ("head",)
    widths, dropout = (8, 8, 12, 16), 0.0

    def __init__(self):
        super().__init__()
        first, *widths = self.widths
        self.stem = nn.Conv2d(3, first, 3, padding=1, bias=False)
        blocks = []
        for number, width in enumerate(widths):
            blocks.append(PreActivation(first, width, 2 if number else 1, self.dropout))
            blocks.append(PreActivation(width, width, 1, self.dropout))
            first = width
        self.blocks, self.norm = nn.Sequential(*blocks), nn.BatchNorm2d(first)
        self.head = nn.Linear(first, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(F.avg_pool2d(x, x.shape[-1]).view(x.shape[0], -1))


class WideResNet(PreActResNet):
    """Wide residual network with dropout between the convolutions (Zagoruyko & Komodakis 2016)."""

    widths, dropout = (6, 12, 24, 48), 0.3


class ResidualInception(nn.Module):
    """Branches are concatenated, projected back without activation, scaled and added."""

    def __init__(self, width, branches, scale):
        super().__init__()
        self.branches, self.scale = nn.ModuleList(branches), scale
        self.up = nn.Conv2d(sum(b[-1][0].out_channels for b in branches), width, 1)

    def forward(self, x):
        y = self.up(torch.cat([branch(x) for branch in self.branches], 1))
        return F.relu(x + y * self.scale)


class InceptionResNet(nn.Module):
    """Inception-ResNet in small: scaled residuals, factorised kernels, reductions (Szegedy et al. 2017)."""

    shape, heads = (3, 17, 17), ("head",)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 8, 3, 2), conv_norm(8, 12, 3, 1, 1))
        self.a = nn.Sequential(*(self._block_a(12) for _ in range(2)))
        self.reduce = nn.ModuleList([conv_norm(12, 8, 3, 2), nn.Sequential(*self._chain(12))])
        self.b = nn.Sequential(*(self._block_b(30) for _ in range(2)))
        self.final, self.drop = conv_norm(30, 20, 1), nn.Dropout(0.2)
        self.head = nn.Linear(20, 4)

    @staticmethod
    def _chain(before):
        return [conv_norm(before, 6, 1), conv_norm(6, 8, 3, 1, 1), conv_norm(8, 10, 3, 2)]

    @staticmethod
    def _block_a(width):
        return ResidualInception(
            width,
            [
                nn.Sequential(conv_norm(width, 4, 1)),
                nn.Sequential(conv_norm(width, 4, 1), conv_norm(4, 6, 3, 1, 1)),
                nn.Sequential(conv_norm(width, 4, 1), conv_norm(4, 5, 3, 1, 1), conv_norm(5, 7, 3, 1, 1)),
            ],
            0.17,
        )

    @staticmethod
    def _block_b(width):
        factorised = [conv_norm(width, 6, 1), conv_norm(6, 7, (1, 7), 1, (0, 3))]
        factorised.append(conv_norm(7, 8, (7, 1), 1, (3, 0)))
        return ResidualInception(
            width, [nn.Sequential(conv_norm(width, 8, 1)), nn.Sequential(*factorised)], 0.1
        )

    def forward(self, x):
        x = self.a(self.stem(x))
        x = torch.cat([*(branch(x) for branch in self.reduce), F.max_pool2d(x, 3, 2)], 1)
        x = F.adaptive_avg_pool2d(self.final(self.b(x)), (1, 1)).squeeze(3).squeeze(2)
        return self.head(self.drop(x))


class Bottleneck(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        half = after // 2
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (before, half, half))
        self.convs = nn.ModuleList(
            [nn.Conv2d(before, half, 1), nn.Conv2d(half, half, 3, padding=1), nn.Conv2d(half, after, 1)]
        )
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x):
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.relu(norm(y)))
        y += self.skip(x)
        return y


class Valley(nn.Module):
    """One hourglass: down, `depth` times nested, up again, added to what went past it."""

    def __init__(self, depth, width):
        super().__init__()
        self.past, self.before, self.after = (Bottleneck(width, width) for _ in range(3))
        self.inner = Valley(depth - 1, width) if depth > 1 else Bottleneck(width, width)

    def forward(self, x):
        y = self.after(self.inner(self.before(F.max_pool2d(x, 2))))
        return self.past(x) + F.interpolate(y, scale_factor=2.0, mode="nearest")


class Hourglass(nn.Module):
    """Stacked hourglass: every stack's heatmap is an output and goes into the next (Newell et al. 2016)."""

    shape, heads = (3, 16, 16), ("heats",)

    def __init__(self, stacks=2, width=8, joints=5):
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 6, 7, 2, 3), Bottleneck(6, width))
        self.valleys = nn.ModuleList(Valley(2, width) for _ in range(stacks))
        self.features = nn.ModuleList(conv_norm(width, width, 1) for _ in range(stacks))
        self.heats = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(stacks))
        self.back = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(stacks - 1))
        self.remap = nn.ModuleList(nn.Conv2d(joints, width, 1) for _ in range(stacks - 1))

    def forward(self, x):
        x, maps = self.stem(x), []
        for number, valley in enumerate(self.valleys):
            y = self.features[number](valley(x))
            maps.append(self.heats[number](y))
            if number < len(self.back):
                x = x + self.back[number](y) + self.remap[number](maps[-1])
        return maps


class UNet(nn.Module):
    """Encoder, decoder, and skips that are concatenated; odd sizes are padded back (Ronneberger et al. 2015).

    `up`: "transposed", "bilinear" to the skip's size, "nearest" twice as large, or "crop" of the skip.
    """

    shape, heads = (3, 21, 19), ("head",)

    def __init__(self, up="transposed"):
        super().__init__()
        self.up = up
        widths = (6, 8, 12)
        self.down = nn.ModuleList(self._double(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True))
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        if up in ("transposed", "crop"):
            self.rise = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        else:
            self.rise = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairs)
        self.join = nn.ModuleList(self._double(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], 2, 1)

    @staticmethod
    def _double(before, after):
        return nn.Sequential(conv_norm(before, after, 3, 1, 1), conv_norm(after, after, 3, 1, 1))

    def _risen(self, number, x, skip):
        if self.up == "bilinear":
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
        if self.up == "nearest":
            x = F.interpolate(x, scale_factor=2)
        x = self.rise[number](x)
        high, wide = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
        if self.up == "crop":
            return x, skip[:, :, high // 2 : high // 2 + x.size(2), wide // 2 : wide // 2 + x.size(3)]
        return F.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2]), skip

    def forward(self, x):
        skips = []
        for number, layer in enumerate(self.down):
            x = layer(F.max_pool2d(x, 2) if number else x)
            skips.append(x)
        for number, join in enumerate(self.join):
            x, skip = self._risen(number, x, skips[-2 - number])
            x = join(torch.cat([skip, x], dim=1))
        return self.head(x)


PUBLISHED = {
    "Highway": Highway,
    "pre-activation ResNet": PreActResNet,
    "WideResNet": WideResNet,
    "Inception-ResNet": InceptionResNet,
    "hourglass": Hourglass,
    "U-Net, transposed": UNet,
    "U-Net, bilinear": lambda: UNet("bilinear"),
    "U-Net, nearest": lambda: UNet("nearest"),
    "U-Net, cropped skips": lambda: UNet("crop"),
}
