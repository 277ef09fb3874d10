"""Seeded random networks: every step draws an operator that real networks use on tensors there are.

A network is a list of steps on a growing set of image tensors [n, c, h, w]. A step names its operands, so
that the same seed always gives the same graph and a failing seed can be printed with its steps.
"""

import random

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.random_steps import MORE_KINDS

IMAGE = (3, 8, 8)
WIDTHS = (4, 6, 8, 12, 16)
ACTIVATIONS = (F.relu, F.silu, F.gelu, F.hardswish, torch.tanh, F.relu_, F.leaky_relu)


class RandomNetwork(nn.Module):
    """`steps` are (name, function of the tensors made so far); modules and parameters live in `parts`."""

    def __init__(self, seed, length=None):
        super().__init__()
        self.draw = random.Random(seed)
        self.parts = nn.ModuleDict()
        self.raw = nn.ParameterDict()
        self.steps = []
        self.shapes = [IMAGE]
        self.used = set()
        self._add("stem", self._conv(0, self.draw.choice(WIDTHS), groups=1), self._conv_shape(0))
        for _ in range(length or self.draw.randint(4, 12)):
            self._step()
        self._finish()

    def forward(self, x):
        found = [x]
        for _, function in self.steps:
            found.append(function(found))
        return tuple(found[i] for i in self.outputs) if len(self.outputs) > 1 else found[-1]

    def describe(self):
        return "; ".join(
            f"{i + 1}={name}{list(shape)}"
            for i, ((name, _), shape) in enumerate(zip(self.steps, self.shapes[1:], strict=True))
        )

    def _step(self):
        kinds = [kind for kind, times in KINDS for _ in range(times)]
        for _ in range(20):
            if self.draw.choice(kinds)(self):
                return

    def _pick(self, *, where=lambda shape: True):
        """A tensor, late ones more often; None where no shape fits."""
        fits = [i for i, shape in enumerate(self.shapes) if i and where(shape)]
        if not fits:
            return None
        return fits[-1] if self.draw.random() < 0.6 else self.draw.choice(fits)

    def _add(self, name, function, shape, *operands):
        self.steps.append((f"{name}({','.join(map(str, operands))})", function))
        self.shapes.append(tuple(shape))
        self.used.update(operands)
        return len(self.shapes) - 1

    def _part(self, module):
        name = f"p{len(self.parts)}"
        self.parts[name] = module
        return module

    def _vector(self, *shape):
        name = f"v{len(self.raw)}"
        self.raw[name] = nn.Parameter(torch.rand(*shape) + 0.5)
        return name

    def _conv(self, source, width, *, groups, kernel=None, stride=1, **kw):
        kernel = kernel or self.draw.choice([1, 3])
        before = self.shapes[source][0]
        bias = self.draw.random() < 0.5
        conv = self._part(
            nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups, bias=bias, **kw)
        )
        norm = self._part(nn.BatchNorm2d(width)) if self.draw.random() < 0.5 else None
        act = self.draw.choice([None, *ACTIVATIONS])
        self.last = (width, stride)

        def run(found):
            y = conv(found[source])
            y = norm(y) if norm is not None else y
            return act(y) if act is not None else y

        return run

    def _conv_shape(self, source):
        width, stride = self.last
        _, h, w = self.shapes[source]
        return width, (h - 1) // stride + 1, (w - 1) // stride + 1

    def _finish(self):
        """All tensors nobody used are pooled into one head, so that nothing of the graph is dead."""
        loose = [i for i in range(1, len(self.shapes)) if i not in self.used] or [len(self.shapes) - 1]
        kind = self.draw.choice(["mean", "flat", "view"]) if len(loose) == 1 else "mean"
        widths = [self.shapes[i][0] for i in loose]
        if kind == "mean":
            features, sources = sum(widths), loose

            def pooled(found):
                return torch.cat([found[i].mean((2, 3)) for i in sources], 1)
        else:
            c, h, w = self.shapes[loose[0]]
            features, source = c * h * w, loose[0]

            def pooled(found):
                return found[source].flatten(1) if kind == "flat" else found[source].reshape(-1, c * h * w)

        self._add(kind, pooled, (features, 1, 1), *loose)
        at = len(self.shapes) - 1
        if self.draw.random() < 0.5:
            hidden = self._part(nn.Linear(features, 10))
            self._add("hidden", lambda found: F.relu(hidden(found[-1])), (10, 1, 1), at)
            features = 10
        head = self._part(nn.Linear(features, 4))
        self._add("head", lambda found: head(found[-1]), (4, 1, 1), len(self.shapes) - 1)
        self.outputs = [len(self.shapes) - 1]
        if self.draw.random() < 0.15:
            self.outputs.insert(0, self.draw.randrange(1, len(self.shapes) - 2))


def convolution(n):
    i = n._pick()
    stride = n.draw.choice([1, 1, 1, 2]) if min(n.shapes[i][1:]) > 2 else 1
    n._add("conv", n._conv(i, n.draw.choice(WIDTHS), groups=1, stride=stride), n._conv_shape(i), i)
    return True


def grouped(n):
    i = n._pick(where=lambda s: s[0] % 2 == 0)
    if i is None:
        return False
    before = n.shapes[i][0]
    groups = n.draw.choice([g for g in range(2, before + 1) if before % g == 0])
    width = groups * n.draw.choice([1, 2, 3])
    n._add(f"conv/{groups}", n._conv(i, width, groups=groups), n._conv_shape(i), i)
    return True


def transposed(n):
    i = n._pick(where=lambda s: s[1] <= 8)
    if i is None:
        return False
    before, h, w = n.shapes[i]
    groups = n.draw.choice([g for g in range(1, before + 1) if before % g == 0])
    width = groups * n.draw.choice([1, 2]) if groups > 1 else n.draw.choice(WIDTHS)
    layer = n._part(nn.ConvTranspose2d(before, width, 2, 2, groups=groups))
    n._add(f"deconv/{groups}", lambda found: layer(found[i]), (width, 2 * h, 2 * w), i)
    return True


def residual(n):
    i = n._pick()
    width, middle = n.shapes[i][0], n.draw.choice(WIDTHS)
    first = n._conv(i, middle, groups=1)
    j = n._add("conv", first, n._conv_shape(i), i)
    second = n._conv(j, width, groups=1)
    k = n._add("conv", second, n._conv_shape(j), j)
    add = n.draw.choice([torch.add, lambda a, b: b + a, lambda a, b: torch.add(a, b, alpha=0.5)])
    n._add("add", lambda found: add(found[k], found[i]), n.shapes[i], i, k)
    return True


def combine(n):
    """Element by element with any tensor of the same shape."""
    i = n._pick()
    others = [j for j in range(1, len(n.shapes)) if j != i and n.shapes[j] == n.shapes[i]]
    if not others:
        return False
    j = n.draw.choice(others)
    act = n.draw.choice([torch.add, torch.mul, torch.maximum, torch.sub])
    n._add(act.__name__, lambda found: act(found[i], found[j]), n.shapes[i], i, j)
    return True


def join(n):
    i = n._pick()
    others = [j for j in range(len(n.shapes)) if n.shapes[j][1:] == n.shapes[i][1:]]
    chosen = [i, *n.draw.choices(others, k=n.draw.randint(1, 2))]
    width = sum(n.shapes[j][0] for j in chosen)
    if width > 40:
        return False
    n.draw.shuffle(chosen)
    n._add("cat", lambda found: torch.cat([found[j] for j in chosen], 1), (width, *n.shapes[i][1:]), *chosen)
    return True


def parted(n):
    """Split in two or three, even or not; parts go on separately."""
    i = n._pick(where=lambda s: s[0] >= 4)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    if n.draw.random() < 0.5:
        count = n.draw.choice([2, 2, 3])
        sizes = [len(part) for part in torch.arange(width).chunk(count)]
        cuts = [(lambda found, k=k: found[i].chunk(count, 1)[k]) for k in range(len(sizes))]
    else:
        first = n.draw.randint(1, width - 1)
        sizes = [first, width - first]
        cuts = [(lambda found, k=k: torch.split(found[i], sizes, 1)[k]) for k in range(2)]
    for size, function in zip(sizes, cuts, strict=True):
        n._add("part", function, (size, h, w), i)
    return True


def sliced(n):
    i = n._pick(where=lambda s: s[0] >= 4)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    start, step = n.draw.randint(0, width // 2 - 1), n.draw.choice([1, 2, 3])
    end = n.draw.choice([width, n.draw.randint(start + 1, width)])
    size = len(range(start, end, step))
    n._add(f"[{start}:{end}:{step}]", lambda found: found[i][:, start:end:step], (size, h, w), i)
    return True


def written(n):
    """Temporal shift: a range of the channels is replaced in place."""
    i = n._pick(where=lambda s: s[0] >= 4)
    if i is None:
        return False
    k = n.draw.randint(1, n.shapes[i][0] - 1)

    def run(found):
        y = found[i].clone()
        y[:, :k] = torch.tanh(found[i][:, :k])
        return y

    n._add(f"write:{k}", run, n.shapes[i], i)
    return True


def shuffled(n):
    i = n._pick(where=lambda s: s[0] % 2 == 0 and s[0] >= 4)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    groups = n.draw.choice([g for g in range(2, width) if width % g == 0])
    if n.draw.random() < 0.3:
        layer = nn.ChannelShuffle(groups)
        n._add(f"ChannelShuffle{groups}", lambda found: layer(found[i]), n.shapes[i], i)
        return True

    def run(found):
        y = found[i].view(-1, groups, width // groups, h, w).transpose(1, 2)
        return y.reshape(-1, width, h, w)

    n._add(f"shuffle{groups}", run, n.shapes[i], i)
    return True


def viewed(n):
    """Fixed-size view to (groups, inner), something done there, and back or reduced."""
    i = n._pick(where=lambda s: s[0] % 2 == 0 and s[0] >= 4)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    groups = n.draw.choice([g for g in range(2, width) if width % g == 0])
    inner = width // groups
    kind = n.draw.choice(["gate", "sum1", "max2", "flat", "inner-gate"])
    gate, small = n._vector(1, groups, 1, 1, 1), n._vector(inner, 1, 1)

    def run(found):
        y = found[i].view(-1, groups, inner, h, w)
        if kind == "sum1":
            return y.sum(1)
        if kind == "max2":
            return y.mean(2)
        if kind == "flat":
            return (y.flatten(2) * 0.5).view(-1, width, h, w)
        y = y * (n.raw[gate] if kind == "gate" else n.raw[small])
        return y.reshape(-1, width, h, w)

    size = {"sum1": inner, "max2": groups}.get(kind, width)
    n._add(f"view{groups}:{kind}", run, (size, h, w), i)
    return True


def normed(n):
    i = n._pick()
    width = n.shapes[i][0]
    kind = n.draw.choice(["batch", "batch", "group", "layer", "instance", "prelu"])
    if kind == "batch":
        layer = n._part(nn.BatchNorm2d(width))
    elif kind == "group":
        layer = n._part(nn.GroupNorm(n.draw.choice([g for g in (1, 2, 4, width) if width % g == 0]), width))
    elif kind == "layer":
        norm = n._part(nn.LayerNorm(width))

        def layer(x):
            return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    elif kind == "instance":
        if n.shapes[i][1] * n.shapes[i][2] == 1:
            return False
        layer = n._part(nn.InstanceNorm2d(width, affine=True))
    else:
        layer = n._part(nn.PReLU(width))
    n._add(f"{kind}-norm", lambda found: layer(found[i]), n.shapes[i], i)
    return True


def activated(n):
    i = n._pick()
    act = n.draw.choice(ACTIVATIONS[:5])
    n._add(act.__name__, lambda found: act(found[i]), n.shapes[i], i)
    return True


def gated(n):
    """Scale by a parameter, by squeeze-and-excite, or by one channel for all."""
    i = n._pick()
    width = n.shapes[i][0]
    kind = n.draw.choice(["scale", "scalar", "excite", "one"])
    if kind in ("scale", "scalar"):
        name = n._vector(*(1, width, 1, 1) if kind == "scale" else (1,))
        n._add(kind, lambda found: found[i] * n.raw[name], n.shapes[i], i)
        return True
    squeeze = n._part(nn.Conv2d(width, n.draw.choice([1, 4]), 1))
    excite = n._part(nn.Conv2d(squeeze.out_channels, width if kind == "excite" else 1, 1))

    def run(found):
        y = found[i]
        return y * torch.sigmoid(excite(F.relu(squeeze(F.adaptive_avg_pool2d(y, 1)))))

    n._add(kind, run, n.shapes[i], i)
    return True


def pooled(n):
    i = n._pick(where=lambda s: s[1] >= 4)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    kind = n.draw.choice([F.max_pool2d, F.avg_pool2d])
    n._add(kind.__name__, lambda found: kind(found[i], 2), (width, h // 2, w // 2), i)
    return True


def resized(n):
    i = n._pick(where=lambda s: s[1] < 8)
    if i is None:
        return False
    mode = n.draw.choice(["nearest", "bilinear"])
    n._add(mode, lambda found: F.interpolate(found[i], (8, 8), mode=mode), (n.shapes[i][0], 8, 8), i)
    return True


def padded(n):
    i = n._pick(where=lambda s: s[0] <= 16)
    width, h, w = n.shapes[i] if i is not None else (99, 0, 0)
    if i is None:
        return False
    before, after = n.draw.randint(0, 3), n.draw.randint(0, 3)
    n._add(
        f"pad{before},{after}",
        lambda found: F.pad(found[i], (0, 0, 0, 0, before, after)),
        (width + before + after, h, w),
        i,
    )
    return True


def moved(n):
    i = n._pick(where=lambda s: s[0] >= 4)
    if i is None:
        return False
    width = n.shapes[i][0]
    shift = n.draw.randint(1, width - 1)
    order = torch.tensor(n.draw.sample(range(width), width))
    kind = n.draw.choice(["flip", "roll", "permutation"])
    if kind == "permutation":
        name = f"order{len(n.steps)}"
        n.register_buffer(name, order)
    run = {
        "flip": lambda found: found[i].flip(1),
        "roll": lambda found: found[i].roll(shift, 1),
        "permutation": lambda found: found[i][:, getattr(n, name)],
    }[kind]
    n._add(kind, run, n.shapes[i], i)
    return True


def repeated(n):
    i = n._pick(where=lambda s: s[0] <= 8)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    each = n.draw.random() < 0.5

    def run(found):
        return found[i].repeat_interleave(2, 1) if each else found[i].repeat(1, 2, 1, 1)

    n._add("each2" if each else "repeat2", run, (2 * width, h, w), i)
    return True


def shared(n):
    """A convolution of before, once more."""
    layers = [m for m in n.parts.values() if type(m) is nn.Conv2d and m.stride == (1, 1)]
    if not layers:
        return False
    layer = n.draw.choice(layers)
    i = n._pick(where=lambda s: s[0] == layer.in_channels)
    if i is None:
        return False
    n._add("again", lambda found: layer(found[i]), (layer.out_channels, *n.shapes[i][1:]), i)
    return True


def rearranged(n):
    """Pixel shuffle and unshuffle, space to depth by views."""
    up = n.draw.random() < 0.5
    i = n._pick(where=lambda s: (s[0] % 4 == 0 and s[1] <= 8) if up else (s[1] >= 4 and s[0] <= 8))
    if i is None:
        return False
    width, h, w = n.shapes[i]
    if up:
        n._add("pixels", lambda found: F.pixel_shuffle(found[i], 2), (width // 4, 2 * h, 2 * w), i)
    else:
        n._add("unpixels", lambda found: F.pixel_unshuffle(found[i], 2), (width * 4, h // 2, w // 2), i)
    return True


def halved(n):
    i = n._pick(where=lambda s: s[0] % 2 == 0)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    n._add("glu", lambda found: F.glu(found[i], 1), (width // 2, h, w), i)
    return True


def attended(n):
    """Packed qkv, heads by a fixed view, fused or written-out attention."""
    i = n._pick(where=lambda s: s[1] * s[2] <= 16)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    heads, inner = n.draw.choice([1, 2, 3]), n.draw.choice([2, 4])
    pack = n._part(nn.Linear(width, 3 * heads * inner))
    out = n._part(nn.Linear(heads * inner, width))
    fused = n.draw.random() < 0.5

    def run(found):
        tokens = found[i].flatten(2).transpose(1, 2)
        q, k, v = pack(tokens).view(-1, h * w, 3, heads, inner).permute(2, 0, 3, 1, 4).unbind(0)
        if fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * inner**-0.5).softmax(-1) @ v
        y = tokens + out(y.transpose(1, 2).reshape(-1, h * w, heads * inner))
        return y.transpose(1, 2).reshape(-1, width, h, w)

    n._add(f"attention{heads}x{inner}", run, n.shapes[i], i)
    return True


def contracted(n):
    i = n._pick()
    width, h, w = n.shapes[i]
    after = n.draw.choice(WIDTHS)
    name = n._vector(width, after)
    n._add("einsum", lambda found: torch.einsum("nchw,cd->ndhw", found[i], n.raw[name]), (after, h, w), i)
    return True


KINDS = (
    (convolution, 4),
    (grouped, 3),
    (transposed, 1),
    (residual, 3),
    (combine, 3),
    (join, 3),
    (parted, 3),
    (sliced, 1),
    (written, 1),
    (shuffled, 2),
    (viewed, 2),
    (normed, 3),
    (activated, 1),
    (gated, 2),
    (pooled, 1),
    (resized, 1),
    (padded, 1),
    (moved, 1),
    (repeated, 1),
    (shared, 2),
    (rearranged, 1),
    (halved, 1),
    (attended, 1),
    (contracted, 1),
    *MORE_KINDS,
)
