"""Patterns that break structured pruning: each is exact, or kept whole with its reason.

Every case is pruned at random and compared with the masked original in float64.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.networks import randomised
from tests.oracle import pruned
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.cost import cost, planned_cost
from toolchain.program.rewrite import apply


class Net(nn.Module):
    """Stem of 12 channels, a body under test, a head that reads what the body gives."""

    after = 12

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.build()
        self.last, self.head = nn.Conv2d(self.after, 6, 1), nn.Linear(6, 4)

    def build(self):
        pass

    def forward(self, x):
        y = self.body(F.relu(self.bn(self.stem(x))), x)
        return self.head(F.relu(self.last(y)).mean((2, 3)))


def net(body, after=12, **modules):
    def build(self):
        for name, make in modules.items():
            setattr(self, name, make())

    return type("Case", (Net,), {"after": after, "build": build, "body": body})


def conv(before, after, **kw):
    return lambda: nn.Conv2d(before, after, 3, padding=1, **kw)


def temporal_shift(m, x, image):
    out = torch.zeros_like(x)
    out[:, :4] = x[:, 4:8]
    out[:, 4:] = x[:, 4:] * 2
    return m.c(out)


def partial_write(m, x, image):
    y = x.clone()
    y[:, :5] = m.c(x[:, :5])
    return y


def split_attention(m, x, image):
    n, _c, h, w = x.shape
    y = m.c(x).view(n, 2, 12, h, w)
    a = torch.softmax(m.fc(y.sum(1).mean((2, 3), keepdim=True)).view(n, 2, 12, 1, 1), 1)
    return (y * a).sum(1)


def c2f(m, x, image):
    parts = list(m.a(x).chunk(2, 1))
    parts.append(m.b(parts[-1]))
    parts.append(m.c(parts[-1]))
    return torch.cat(parts, 1)


def res2net(m, x, image):
    first, second, third = torch.split(x, [4, 4, 4], 1)
    second = m.a(second)
    return torch.cat([first, second, m.b(second + third)], 1)


def ghost(m, x, image):
    y = m.a(x)
    return torch.cat([y, m.b(y)], 1)[:, :14]


def two_groupings(m, x, image):
    y = torch.cat([m.a(x), m.b(x)], 1)
    return m.c(y) + m.d(y)


def eca(m, x, image):
    y = x.mean((2, 3)).unsqueeze(1)
    return x * torch.sigmoid(m.e(y)).transpose(1, 2).unsqueeze(-1)


def cbam(m, x, image):
    y = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * torch.sigmoid(m.e(y))


def gram(m, x, image):
    y = x.flatten(2)
    return m.c(x) * (y @ y.transpose(1, 2)).mean((1, 2)).view(-1, 1, 1, 1)


def windows(m, x, image):
    n, c, h, w = x.shape
    y = (
        x.permute(0, 2, 3, 1)
        .view(n, 2, h // 2, 2, w // 2, c)
        .permute(0, 1, 3, 2, 4, 5)
        .reshape(-1, h * w // 4, c)
    )
    q, k, v = m.qkv(y).chunk(3, -1)
    heads = [t.view(t.shape[0], t.shape[1], 3, 4).transpose(1, 2) for t in (q, k, v)]
    a = heads[0] @ heads[1].transpose(-2, -1) * 0.5 + m.bias[m.index.view(-1)].view(16, 16, 3).permute(
        2, 0, 1
    )
    y = m.out((a.softmax(-1) @ heads[2]).transpose(1, 2).reshape(-1, h * w // 4, 12))
    y = y.view(n, 2, 2, h // 2, w // 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return x + y.permute(0, 3, 1, 2)


def grouped_queries(m, x, image):
    t = x.flatten(2).transpose(1, 2)
    q = m.q(t).view(t.shape[0], t.shape[1], 4, 3).transpose(1, 2)
    k, v = (f(t).view(t.shape[0], t.shape[1], 2, 3).transpose(1, 2) for f in (m.k, m.v))
    y = F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))
    return y.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (8, 8))


def native_grouped_queries(m, x, image):
    t = x.flatten(2).transpose(1, 2)
    q = m.q(t).view(t.shape[0], t.shape[1], 4, 3).transpose(1, 2)
    k, v = (f(t).view(t.shape[0], t.shape[1], 2, 3).transpose(1, 2) for f in (m.k, m.v))
    y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    return y.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (8, 8))


def mixer(m, x, image):
    t = x.flatten(2)
    return (t + m.b(F.gelu(m.a(t)))).unflatten(2, (8, 8))


def recurrent(m, x, image):
    y, _ = m.rnn(x.flatten(2).transpose(1, 2))
    return y.transpose(1, 2).unflatten(2, (8, 8))


def repeats(m, x, image):
    return torch.cat([x.repeat(1, 2, 1, 1), x.repeat_interleave(2, 1), torch.zeros_like(x)], 1)


def constants(m, x, image):
    y = x + torch.arange(12.0, dtype=x.dtype).view(1, 12, 1, 1) * m.scale.view(1, -1, 1, 1) + m.place
    with torch.no_grad():
        z = m.c(x.detach())
    return y + z


def einsum(m, x, image):
    return torch.einsum("nchw,dc->ndhw", x, m.w) + torch.einsum("bchw,c->bchw", x, m.s)


class Standardised(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, w, self.bias, padding=1)


class FrozenNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x):
        scale = (self.weight * (self.var + 1e-5).rsqrt()).reshape(1, -1, 1, 1)
        return x * scale + (self.bias - self.mean * scale.reshape(-1)).reshape(1, -1, 1, 1)


def weight_normed():
    return parametrizations.weight_norm(nn.Conv2d(12, 12, 3, padding=1))


def dense_cascade(m, x, image):
    return F.glu(m.a(torch.cat([x, m.p(x)], 1)), 1) * torch.sigmoid(m.g(x))


PERMUTATION = torch.tensor([3, 1, 2, 0, 7, 6, 5, 4, 11, 8, 9, 10])
CASES = {
    "model input in a concatenation": net(lambda m, x, i: torch.cat([i, x], 1), 15),
    "temporal shift": net(temporal_shift, c=conv(12, 12)),
    "in-place channel slice": net(partial_write, c=conv(5, 5)),
    "flip": net(lambda m, x, i: m.c(x.flip(1)), c=conv(12, 12)),
    "roll": net(lambda m, x, i: m.c(x.roll(5, 1)), c=conv(12, 12)),
    "permutation": net(lambda m, x, i: m.c(x[:, PERMUTATION]), c=conv(12, 12)),
    "index_select": net(lambda m, x, i: m.c(x.index_select(1, PERMUTATION[:7])), c=conv(7, 12)),
    "split attention": net(split_attention, c=conv(12, 24), fc=lambda: nn.Conv2d(12, 24, 1)),
    "softmax over channels": net(lambda m, x, i: m.c(x.softmax(1)), c=conv(12, 12)),
    "l2 norm over channels": net(lambda m, x, i: m.c(F.normalize(x, dim=1)), c=conv(12, 12)),
    "group norm": net(lambda m, x, i: m.g(m.c(x)), c=conv(12, 12), g=lambda: nn.GroupNorm(3, 12)),
    "weight standardisation": net(lambda m, x, i: m.c(x), c=lambda: Standardised(12, 12, 3)),
    "nn.ChannelShuffle": net(lambda m, x, i: m.c(m.s(x)), c=conv(12, 12), s=lambda: nn.ChannelShuffle(3)),
    "pixel shuffle": net(lambda m, x, i: m.c(F.pixel_shuffle(m.a(x), 2)), a=conv(12, 20), c=conv(5, 12)),
    "pixel unshuffle": net(lambda m, x, i: m.c(F.pixel_unshuffle(x, 2)), c=conv(48, 12)),
    "C2f": net(c2f, 28, a=conv(12, 14), b=conv(7, 7), c=conv(7, 7)),
    "Res2Net": net(res2net, a=conv(4, 4), b=conv(4, 4)),
    "strided channels": net(lambda m, x, i: torch.cat([m.c(x[:, ::2]), x[:, 1::3]], 1), 16, c=conv(6, 12)),
    "ghost": net(ghost, 14, a=conv(12, 8), b=conv(8, 8, groups=8)),
    "windows": net(
        windows,
        qkv=lambda: nn.Linear(12, 36),
        out=lambda: nn.Linear(12, 12),
        bias=lambda: nn.Parameter(torch.rand(49, 3)),
        index=lambda: nn.Buffer(torch.arange(256).reshape(16, 16) % 49),
    ),
    "grouped queries": net(
        grouped_queries, q=lambda: nn.Linear(12, 12), k=lambda: nn.Linear(12, 6), v=lambda: nn.Linear(12, 6)
    ),
    "native grouped queries": net(
        native_grouped_queries,
        q=lambda: nn.Linear(12, 12),
        k=lambda: nn.Linear(12, 6),
        v=lambda: nn.Linear(12, 6),
    ),
    "token mixer": net(mixer, a=lambda: nn.Linear(64, 10), b=lambda: nn.Linear(10, 64)),
    "ECA": net(eca, e=lambda: nn.Conv1d(1, 1, 3, padding=1)),
    "CBAM": net(cbam, e=lambda: nn.Conv2d(2, 1, 3, padding=1)),
    "gram": net(gram, c=conv(12, 12)),
    "groups after concatenation": net(
        two_groupings, a=conv(12, 4), b=conv(12, 8), c=conv(12, 12, groups=3), d=conv(12, 12, groups=2)
    ),
    "depthwise multiplier": net(lambda m, x, i: m.c(x), 24, c=conv(12, 24, groups=12)),
    "grouped transposed": net(
        lambda m, x, i: m.b(m.a(x)),
        a=lambda: nn.ConvTranspose2d(12, 18, 2, 2, groups=3),
        b=lambda: nn.ConvTranspose2d(18, 12, 2),
    ),
    "depthwise transposed": net(
        lambda m, x, i: m.a(x), a=lambda: nn.ConvTranspose2d(12, 12, 2, 2, groups=12)
    ),
    "lstm": net(recurrent, 10, rnn=lambda: nn.LSTM(12, 5, 2, batch_first=True, bidirectional=True)),
    "gru": net(recurrent, 5, rnn=lambda: nn.GRU(12, 5, batch_first=True)),
    "repeats": net(repeats, 60),
    "constants, no_grad, detach": net(
        constants,
        c=conv(12, 12),
        scale=lambda: nn.Buffer(torch.rand(12)),
        place=lambda: nn.Parameter(torch.rand(1, 1, 8, 8)),
    ),
    "einsum": net(einsum, w=lambda: nn.Parameter(torch.rand(12, 12)), s=lambda: nn.Parameter(torch.rand(12))),
    "weight norm": net(lambda m, x, i: m.c(x), c=weight_normed),
    "spectral norm": net(
        lambda m, x, i: m.c(x), c=lambda: parametrizations.spectral_norm(nn.Conv2d(12, 12, 3))
    ),
    "checkpoint": net(lambda m, x, i: checkpoint(m.c, x, use_reentrant=False), c=conv(12, 12)),
    "prelu, glu, gates": net(dense_cascade, a=conv(24, 24), p=lambda: nn.PReLU(12), g=conv(12, 1)),
    "frozen batch norm": net(lambda m, x, i: m.f(m.c(x)), c=conv(12, 12), f=lambda: FrozenNorm(12)),
    "one-channel convolution": net(lambda m, x, i: x * m.b(m.a(x)), a=conv(12, 1), b=conv(1, 1)),
    "tied convolutions": net(lambda m, x, i: m.c(F.relu(m.c(x))) + x, c=conv(12, 12)),
    "upsampling": net(lambda m, x, i: F.interpolate(m.c(x), scale_factor=2, mode="bilinear"), c=conv(12, 12)),
    "unfold": net(
        lambda m, x, i: m.f(F.unfold(x, 3, padding=1).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8)),
        f=lambda: nn.Linear(108, 12),
    ),
    "instance norm": net(
        lambda m, x, i: m.n(m.c(x)), c=conv(12, 12), n=lambda: nn.InstanceNorm2d(12, affine=True)
    ),
    "stack": net(lambda m, x, i: torch.stack([x, m.c(x)], 2).sum(2), c=conv(12, 12)),
    "linear attention": net(
        lambda m, x, i: (
            (F.elu(x.flatten(2)) + 1) @ (F.elu(m.c(x).flatten(2)) + 1).transpose(1, 2) @ x.flatten(2)
        ).unflatten(2, (8, 8)),
        c=conv(12, 12),
    ),
    "one channel cut out": net(lambda m, x, i: torch.cat([F.relu(x[:, 3:4]), x], 1), 13),
    "one channel in a stride": net(lambda m, x, i: torch.cat([i, F.silu(x[:, 2:8:7])], 1), 4),
    "parts of one channel": net(lambda m, x, i: torch.cat([F.relu(p) for p in x.split([1, 10, 1], 1)], 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_trap(name):
    network = randomised(CASES[name]())
    program = capture(network, (torch.randn(2, 3, 8, 8, dtype=torch.float64),), name=name)
    channels = analyse(program)
    assert all(f.reason for f in channels.frozen)
    assert any((m.parameter, m.dim) == ("stem.weight", 0) for g in channels.groups for m in g.members)
    for seed, batch in ((0, 1), (1, 3)):
        pruned(program, seed=seed, batch=batch)


class Outputs(nn.Module):
    """Intermediate features and two heads of one shared layer are part of the contract."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.a(x)
        z = self.b(y)
        return {"features": y, "first": self.head(z), "second": self.head(F.max_pool2d(z, 2))}


def test_no_output_shrinks_unasked():
    program = capture(randomised(Outputs()), (torch.randn(2, 3, 9, 9, dtype=torch.float64),), name="outputs")
    channels = analyse(program)
    assert [g.name for g in channels.groups] == ["b"]
    reasons = {f.parameter: f.reason for f in channels.frozen if f.dim == 0}
    assert set(reasons) == {"a.weight", "a.bias", "head.weight", "head.bias"}
    assert all("output" in r for r in reasons.values())
    small = apply(program, channels, {"b": (1, 5)})
    x = example_inputs(program, 2)
    assert [o.shape for o in small.module(*x)] == [o.shape for o in program.module(*x)]


@torch.library.custom_op("edgefit_tests::odd", mutates_args=())
def odd(x: torch.Tensor) -> torch.Tensor:
    return x.flip(1).cumsum(1)


@odd.register_fake
def _(x):
    return torch.empty_like(x)


def test_an_operator_without_rule_is_named_and_keeps_its_channels():
    case = net(lambda m, x, i: odd(m.a(x)) + m.b(x), a=conv(12, 12), b=conv(12, 12))
    program = capture(randomised(case()), (torch.randn(2, 3, 8, 8).double(),), name="odd")
    channels = analyse(program)
    assert channels.unknown == {"edgefit_tests.odd.default": 1}
    assert {g.name for g in channels.groups} == {"stem", "last"}
    reasons = {f.parameter: f.reason for f in channels.frozen if f.dim == 0}
    assert all("odd" in reasons[f"{name}.{kind}"] for name in "ab" for kind in ("weight", "bias"))
    pruned(program, seed=0, batch=3)


def test_a_filter_along_the_channels_sees_removed_ones_as_zeros_however_often_they_are_cut():
    program = capture(randomised(CASES["ECA"]()), (torch.randn(2, 3, 8, 8).double(),), name="eca")
    (stem,) = (g for g in analyse(program).groups if g.name == "stem")
    assert "conv1d" in stem.note
    assert "slides over the channels" in stem.note
    whole = planned_cost(program, analyse(program), {"stem": 12})
    for seed, batch in ((0, 3), (1, 1), (2, 2)):
        program = pruned(program, seed=seed, batch=batch, share=0.7)
    again = capture(program.module, example_inputs(program, 2), name="eca")
    assert cost(again).macs == cost(program).macs < whole.macs
    pruned(again, seed=3, batch=3)
