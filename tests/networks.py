"""Small networks, one a topology that structured pruning has to get right, for property and unit tests."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

torch.set_num_threads(1)


class Chain(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.3)
        self.fc1, self.fc2 = nn.Linear(12 * 4 * 4, 10), nn.Linear(10, 5)

    def forward(self, x):
        x = F.relu_(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.fc2(self.drop(F.relu6(self.fc1(torch.flatten(x, 1)))))


class Block(nn.Module):
    def __init__(self, before, after, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.short = nn.Conv2d(before, after, 1, stride) if stride > 1 else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += self.short(x) if self.short is not None else x
        return F.relu(y)


class Residual(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(6, 6), Block(6, 10, 2), Block(10, 10))
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).squeeze())


class OptionA(nn.Module):
    """The CIFAR ResNet shortcut: stride, then zeros on both sides of the channels."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), Block(6, 6), nn.Conv2d(6, 12, 3, 2, 1)
        self.bn, self.three, self.head = nn.BatchNorm2d(12), Block(12, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.one(F.relu(self.stem(x)))
        x = F.relu(self.bn(self.two(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3)))
        return self.head(self.three(x).mean((2, 3)))


class Dense(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.grow = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.norm = nn.BatchNorm2d(18)
        self.mix, self.head = nn.Conv2d(18 + 3, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        found = [self.stem(x)]
        for layer in self.grow:
            found.append(F.silu(layer(torch.cat(found, 1))))
        joined = torch.cat([x, F.relu(self.norm(torch.cat(found, 1)))], 1)
        return self.head(self.mix(joined).amax((2, 3)))


class Depthwise(nn.Module):
    """Inverted bottlenecks with squeeze-and-excite and a channel multiplier."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 12, 1)
        self.deep, self.bn = nn.Conv2d(12, 24, 3, padding=1, groups=12), nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 4, 1), nn.Conv2d(4, 24, 1)
        self.narrow, self.head = nn.Conv2d(24, 6, 1), nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x)
        y = F.hardswish(self.bn(self.deep(F.relu6(self.wide(x)))))
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.head((x + self.narrow(y)).mean([2, 3]))


class Grouped(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1, groups=4)
        self.bn, self.c = nn.BatchNorm2d(12), nn.Conv2d(12, 12, 1, groups=2)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.c(F.elu(self.bn(self.b(F.relu(self.a(x)))))).mean((2, 3)))


class Shuffle(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.units = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x)
        for unit in self.units:
            left, right = x.chunk(2, 1)
            x = torch.cat([left, F.relu(unit(right))], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x.mean((2, 3)))


class Shared(nn.Module):
    """One convolution used twice, and a weight tied to another layer's."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.left, self.right = nn.Linear(8, 6), nn.Linear(8, 6)
        self.right.weight = self.left.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.twice(F.relu(self.twice(self.stem(x))))).mean((2, 3))
        return self.head(torch.tanh(self.left(x)) * self.right(x))


class FixedView(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv, self.fc1 = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Linear(6 * 4 * 4, 8)
        self.scale = nn.Parameter(torch.rand(8))
        self.back, self.head = nn.Conv2d(8, 5, 1), nn.Linear(5, 3)

    def forward(self, x):
        x = F.leaky_relu(self.conv(x)).view(-1, 6 * 4 * 4)
        x = (torch.relu(self.fc1(x)) * self.scale).view(-1, 8, 1, 1)
        return self.head(self.back(x).reshape(x.shape[0], 5))


class Attention(nn.Module):
    """A transformer block with packed qkv, class token and position table."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 5, 12))
        self.norm1, self.qkv, self.out = nn.LayerNorm(12), nn.Linear(12, 36), nn.Linear(12, 12)
        self.norm2, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 20), nn.Linear(20, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 12))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x[:, 0])


class Separate(nn.Module):
    """Attention with projections of its own for q, k, v, written out with matrix products."""

    shape = (6, 10)

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(10, 12), nn.Linear(10, 12), nn.Linear(10, 18)
        self.into, self.out = nn.Linear(10, 10), nn.Linear(18, 10)
        self.norm, self.head = nn.LayerNorm(10), nn.Linear(10, 3)

    def forward(self, x):
        n, t, _ = x.shape
        x = self.into(x)
        q, k, v = (f(x).view(n, t, 3, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = torch.softmax(q @ k.transpose(-2, -1) / 2.0, -1)
        return self.head(self.norm(x + self.out((a @ v).transpose(1, 2).flatten(2))).mean(1))


class Normed(nn.Module):
    """GroupNorm, and a LayerNorm over channels last."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.gn = nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(4, 12)
        self.deep, self.ln = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.LayerNorm(12)
        self.up, self.down, self.gamma = nn.Linear(12, 20), nn.Linear(20, 12), nn.Parameter(torch.rand(12))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = F.relu(self.gn(self.stem(x)))
        y = self.ln(self.deep(x).permute(0, 2, 3, 1))
        x = x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


TOPOLOGIES = {
    "chain": Chain,
    "residual": Residual,
    "option A": OptionA,
    "concatenation": Dense,
    "depthwise, squeeze and excite": Depthwise,
    "grouped": Grouped,
    "channel shuffle": Shuffle,
    "shared weights": Shared,
    "fixed-size view": FixedView,
    "attention": Attention,
    "separate q k v": Separate,
    "normalisations": Normed,
}


def randomised(module, seed=0):
    """Weights and statistics without constant tensors, which would hide mistakes; float64, eval."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=torch.float64))
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.5)
    return module
