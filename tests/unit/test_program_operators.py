"""Operators one by one: each follows channels exactly, or keeps them with a reason that names it.

Every case is pruned at random and compared with the masked original in float64; `stem` units are expected to
be removable, all 12 where nothing else is said.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations

from tests.networks import randomised
from tests.oracle import pruned
from tests.unit.test_program_traps import conv, net
from toolchain.program.capture import capture
from toolchain.program.channels import analyse


def vector(*shape):
    return lambda: nn.Parameter(torch.rand(*shape))


def table(*values):
    return lambda: nn.Buffer(torch.tensor(values))


def dense(before, after):
    return lambda: nn.Linear(before, after)


def point(before, after):
    return lambda: nn.Conv2d(before, after, 1)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def image(t):
    return t.transpose(1, 2).unflatten(2, (8, 8))


def numbers(x, *shape):
    return torch.zeros(x.shape[0], *shape, dtype=torch.long)


def changed(x, write):
    """`write` changes a copy in place."""
    y = x.clone()
    write(y)
    return y


def strided_write(m, x, i):
    def write(y):
        y[:, ::2] = torch.tanh(m.c(x)[:, ::2])

    return changed(x, write)


def strided_view_of_what_changes(m, x, i):
    y = m.c(x)
    part = y[:, ::2]
    y.mul_(0.5)
    return torch.cat([part, y], 1)


def listed_write(m, x, i):
    def write(y):
        y[:, [0, 3, 5]] = m.c(x)[:, 2:5]

    return changed(x, write)


def masked_write(m, x, i):
    def write(y):
        y[y > 1] = 0.5

    return changed(x, write)


def rows_write(m, x, i):
    def write(y):
        y[:, :, [0, 3]] = x[:, :, [1, 2]]

    return changed(x, write)


def unpool(m, x, i):
    y, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(m.c(y), places, 2)


def spatial_transformer(m, x, i):
    grid = F.affine_grid(m.f(x.mean((2, 3))).view(-1, 2, 3), (x.shape[0], 12, 8, 8), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def space_to_depth(m, x, i):
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, c * 4, h // 2, w // 2)


def depth_to_space(m, x, i):
    n, c, h, w = x.shape
    return x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, h * 2, w * 2)


def focus(m, x, i):
    return torch.cat([x[..., a::2, b::2] for b in (0, 1) for a in (0, 1)], 1)


def selective_kernels(m, x, i):
    y = torch.stack([m.a(x), m.b(x)], 1)
    z = F.relu(m.f(y.sum(1).mean((2, 3))))
    a = torch.stack([m.g(z), m.h(z)], 1).softmax(1)
    return (y * a[..., None, None]).sum(1)


def split_attention(m, x, i):
    n, y = x.shape[0], F.relu(m.c(x))
    s = y.view(n, 2, 12, 8, 8).sum(1).mean((2, 3), keepdim=True)
    a = m.g(F.relu(m.f(s))).view(n, 3, 2, 4).transpose(1, 2).softmax(1).reshape(n, -1).view(n, -1, 1, 1)
    return sum(p * q for p, q in zip(torch.split(y, 12, 1), torch.split(a, 12, 1), strict=True))


def channel_attention(m, x, i):
    y = x.flatten(2)
    gram = torch.bmm(y, y.transpose(1, 2))
    a = (gram.max(-1, keepdim=True)[0].expand_as(gram) - gram).softmax(-1)
    return (a @ y).view_as(x) * 0.5 + x


def bilinear_pooling(m, x, i):
    y = x.flatten(2)
    return m.f((y @ y.transpose(1, 2) / 64).flatten(1))[:, :, None, None] * m.c(x)


def cross_covariance(m, x, i):
    q, k, v = m.qkv(tokens(x)).reshape(-1, 64, 3, 3, 4).permute(2, 0, 3, 4, 1).unbind(0)
    a = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * m.t).softmax(-1)
    return image((a @ v).permute(0, 3, 1, 2).reshape(-1, 64, 12))


def rotated(m, x, i):
    left, right = x.chunk(2, 1)
    return torch.cat([-right, left], 1) * m.s.view(1, 12, 1, 1) + x


def rotated_in_pairs(m, x, i):
    return torch.stack([-x[:, 1::2], x[:, ::2]], 2).flatten(1, 2) * m.s.view(1, 12, 1, 1) + x


def global_response(m, x, i):
    g = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
    return m.s.view(1, -1, 1, 1) * (x * g / (g.mean(1, keepdim=True) + 1e-6)) + x


def coordinates(m, x, i):
    a, b = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
    return torch.cat([x, torch.stack([a, b]).to(x.dtype).expand(x.shape[0], -1, -1, -1)], 1)


def mixed_weights(m, x, i):
    """A convolution whose weight is a mixture, one for the whole batch."""
    share = torch.sigmoid(m.f(x.mean((2, 3)))).mean(0)
    return F.conv2d(x, (share.view(4, 1, 1, 1, 1) * m.w).sum(0), padding=1)


def weights_for_each_sample(m, x, i):
    n = x.shape[0]
    weight = m.f(x.mean((2, 3))).view(n * 12, 1, 3, 3)
    return F.conv2d(x.reshape(1, -1, 8, 8), weight, padding=1, groups=n * 12).view(n, 12, 8, 8)


def fourier(m, x, i):
    y = torch.view_as_real(torch.fft.rfft2(x, norm="ortho")) * m.w
    return torch.fft.irfft2(torch.view_as_complex(y), s=(8, 8), norm="ortho") + x


EXACT = {
    "in-place strided write": net(strided_write, c=conv(12, 12)),
    "in-place write to a list of channels": net(listed_write, c=conv(12, 12)),
    "in-place write by mask": net(masked_write),
    "in-place write to rows": net(rows_write),
    "index_add": net(lambda m, x, i: x.index_add(1, m.i, m.c(x)[:, :3]), c=conv(12, 12), i=table(5, 1, 2)),
    "index_copy": net(lambda m, x, i: x.index_copy(1, m.i, m.c(x)[:, :3]), c=conv(12, 12), i=table(5, 1, 2)),
    "index_fill": net(lambda m, x, i: x.index_fill(1, m.i, 2.0), i=table(5, 1, 2)),
    "list with repetitions": net(lambda m, x, i: m.c(x[:, m.i]), c=conv(5, 12), i=table(5, 4, 0, 0, 7)),
    "scatter along rows": net(lambda m, x, i: x.scatter(2, numbers(x, 12, 1, 8), 3.0)),
    "gather along rows": net(lambda m, x, i: x.gather(2, numbers(x, 12, 3, 8))),
    "one_hot": net(
        lambda m, x, i: torch.cat([x, F.one_hot((i[:, 0] > 0).long(), 3).permute(0, 3, 1, 2).to(x)], 1), 15
    ),
    "embedding": net(
        lambda m, x, i: x + m.e((i[:, 0] > 0).long()).permute(0, 3, 1, 2), e=lambda: nn.Embedding(2, 12)
    ),
    "embedding_bag": net(
        lambda m, x, i: x + m.e((i[:, 0].flatten(1) > 0).long())[:, :, None, None],
        e=lambda: nn.EmbeddingBag(2, 12),
    ),
    "max_unpool": net(unpool, c=conv(12, 12)),
    "affine_grid, grid_sample": net(spatial_transformer, f=dense(12, 6)),
    "space to depth by views": net(space_to_depth, 48),
    "depth to space by views": (7, net(depth_to_space, 3)),
    "focus": net(focus, 48),
    "fold": net(lambda m, x, i: F.fold(F.unfold(x, 2, stride=2) * 2, (8, 8), 2, stride=2)),
    "unfold as views": net(lambda m, x, i: x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))),
    "selective kernels": net(
        selective_kernels, a=conv(12, 12), b=conv(12, 12), f=dense(12, 5), g=dense(5, 12), h=dense(5, 12)
    ),
    "split attention, cardinality 3": net(split_attention, c=conv(12, 24), f=point(12, 6), g=point(6, 24)),
    "channel attention": net(channel_attention),
    "cross-covariance attention": net(cross_covariance, qkv=dense(12, 36), t=vector(3, 1, 1)),
    "bilinear pooling": net(bilinear_pooling, f=dense(144, 12), c=conv(12, 12)),
    "nn.Bilinear": net(
        lambda m, x, i: x * m.b(x.mean((2, 3)), i.mean((2, 3)))[:, :, None, None],
        b=lambda: nn.Bilinear(12, 3, 12),
    ),
    "largest of channels": net(
        lambda m, x, i: torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1), 2
    ),
    "logsumexp, prod": net(lambda m, x, i: x - x.logsumexp(1, keepdim=True) + x.prod(1, keepdim=True)),
    "log_softmax over channels": net(lambda m, x, i: m.c(F.log_softmax(x, 1)), c=conv(12, 12)),
    "variance over channels": net(lambda m, x, i: (x - x.mean(1, True)) / (x.var(1, keepdim=True) + 1)),
    "aminmax": net(lambda m, x, i: x - sum(torch.aminmax(x, dim=1, keepdim=True))),
    "sort, cumsum, topk of positions": net(
        lambda m, x, i: x.flatten(2).sort(-1)[0].cumsum(-1).topk(16, -1)[0].unflatten(2, (4, 4))
    ),
    "tril": net(lambda m, x, i: torch.tril(x)),
    "rotary halves": (6, net(rotated, s=vector(12))),
    "rotary pairs": (6, net(rotated_in_pairs, s=vector(12))),
    "unbind": (6, net(lambda m, x, i: torch.stack(x.unflatten(1, (2, 6)).unbind(1), 2).flatten(1, 2))),
    "global response normalisation": net(global_response, s=vector(12)),
    "coordinate channels": net(coordinates, 14),
    "tensor_split": net(lambda m, x, i: torch.cat(torch.tensor_split(x, (2, 7), 1)[::-1], 1)),
    "chunks of unequal size": net(lambda m, x, i: torch.cat(torch.chunk(x, 5, 1)[::-1], 1)),
    "hstack, tile": net(lambda m, x, i: torch.hstack([x, m.c(x)]).tile(1, 2, 1, 1), 48, c=conv(12, 12)),
    "view_as": net(lambda m, x, i: m.c(x).flatten(1).view_as(x) + x, c=conv(12, 12)),
    "movedim, mT": net(lambda m, x, i: m.f(x.movedim(1, -1)).movedim(-1, 1).mT, f=dense(12, 12)),
    "tensordot": net(
        lambda m, x, i: torch.tensordot(x, m.w, dims=([1], [0])).permute(0, 3, 1, 2), w=vector(12, 12)
    ),
    "einsum, outer product": net(
        lambda m, x, i: x + torch.einsum("nc,hw->nchw", x.mean((2, 3)), m.w), w=vector(8, 8)
    ),
    "einsum, leading dots": net(lambda m, x, i: torch.einsum("...chw,cd->...dhw", x, m.w), w=vector(12, 12)),
    "einsum, three operands": net(
        lambda m, x, i: torch.einsum("nchw,cd,de->nehw", x, m.w, m.v) + x, w=vector(12, 7), v=vector(7, 12)
    ),
    "addmm, baddbmm": net(
        lambda m, x, i: (
            torch.addmm(m.b, x.mean((2, 3)), m.w)[..., None, None]
            * torch.baddbmm(x.flatten(2), x.flatten(2), m.v.expand(x.shape[0], -1, -1)).unflatten(2, (8, 8))
        ),
        w=vector(12, 12),
        b=vector(12),
        v=vector(64, 64),
    ),
    "conv1d, groups": (
        7,
        net(
            lambda m, x, i: m.c(x.flatten(2)).unflatten(2, (8, 8)),
            c=lambda: nn.Conv1d(12, 12, 3, 1, 1, groups=3),
        ),
    ),
    "conv3d": net(lambda m, x, i: m.c(x.unsqueeze(2)).squeeze(2), c=lambda: nn.Conv3d(12, 12, 3, padding=1)),
    "conv_transpose1d": net(
        lambda m, x, i: m.c(x.flatten(2)).unflatten(2, (8, 8)), c=lambda: nn.ConvTranspose1d(12, 12, 1)
    ),
    "conv_transpose3d, groups": (
        8,
        net(
            lambda m, x, i: m.c(x.unsqueeze(2)).squeeze(2),
            c=lambda: nn.ConvTranspose3d(12, 12, 3, padding=1, groups=2),
        ),
    ),
    "one kernel for every channel": net(
        lambda m, x, i: F.conv2d(x, m.k.expand(12, -1, -1, -1), groups=12, stride=2),
        k=lambda: nn.Buffer(torch.rand(1, 1, 3, 3)),
    ),
    "channels folded into the batch": net(
        lambda m, x, i: m.c(x.reshape(-1, 1, 8, 8)).reshape(-1, 12, 8, 8), c=conv(1, 1)
    ),
    "mixture of weights": net(mixed_weights, f=dense(12, 4), w=vector(4, 12, 12, 3, 3)),
    "weights joined and permuted": net(
        lambda m, x, i: F.conv2d(x, torch.cat([m.w, m.v.permute(1, 0, 2, 3)])[:12], padding=1),
        w=vector(7, 12, 3, 3),
        v=vector(12, 9, 3, 3),
    ),
    "low-rank weight": net(
        lambda m, x, i: F.conv2d(x, (m.a @ m.b).view(12, 12, 1, 1)), a=vector(12, 5), b=vector(5, 12)
    ),
    "binary weight": net(
        lambda m, x, i: F.conv2d(x, m.w.sign() * m.w.abs().mean((1, 2, 3), keepdim=True)),
        w=vector(12, 12, 3, 3),
    ),
    "weight norm over inputs": net(
        lambda m, x, i: m.c(x), c=lambda: parametrizations.weight_norm(nn.Conv2d(12, 12, 3), dim=1)
    ),
    "weight norm over all": net(
        lambda m, x, i: m.c(x), c=lambda: parametrizations.weight_norm(nn.Conv2d(12, 12, 3), dim=None)
    ),
    "weight norm of the old kind": net(
        lambda m, x, i: m.c(x), c=lambda: nn.utils.weight_norm(nn.ConvTranspose2d(12, 12, 3))
    ),
    "spectral norm of a matrix": net(
        lambda m, x, i: image(m.f(tokens(x))), f=lambda: parametrizations.spectral_norm(nn.Linear(12, 12))
    ),
    "fourier": net(fourier, w=vector(12, 8, 5, 1)),
    **{
        f"interpolate, {mode}": net(
            lambda m, x, i, mode=mode: F.interpolate(m.c(x), scale_factor=2, mode=mode), c=conv(12, 12)
        )
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
    },
    **{
        f"pad, {mode}": net(lambda m, x, i, mode=mode: m.c(F.pad(x, (2, 1, 1, 2), mode=mode)), c=conv(12, 12))
        for mode in ("constant", "reflect", "replicate", "circular")
    },
    "pooling": net(
        lambda m, x, i: F.adaptive_avg_pool2d(F.lp_pool2d(F.adaptive_max_pool2d(x, (6, 5)) + 1, 2, 2), 2)
    ),
}
KEPT = {
    "strided": net(strided_view_of_what_changes, 18, c=conv(12, 12)),
    "topk": net(lambda m, x, i: m.c(x.topk(5, 1)[0]), c=conv(5, 12)),
    "argmax": net(lambda m, x, i: x * (x.argmax(1, True) > 3)),
    "scatter": net(lambda m, x, i: x.scatter(1, numbers(x, 1, 8, 8), 3.0)),
    "cumsum": net(lambda m, x, i: x.cumsum(1)),
    "fft_fft": net(lambda m, x, i: torch.fft.fft(x, dim=1).real),
    "used as numbers": net(lambda m, x, i: x + m.t[(x > 0).long()], t=vector(2)),
    "cropped": net(lambda m, x, i: F.pad(x, (0, 0, 0, 0, -2, -1)), 9),
    "unbind": net(lambda m, x, i: torch.stack([F.relu(p) for p in x.unbind(1)], 1)),
    "groups as samples": net(weights_for_each_sample, f=dense(12, 108)),
    "einsum": net(
        lambda m, x, i: x * torch.einsum("ncc->n", x.flatten(2) @ x.flatten(2).mT).view(-1, 1, 1, 1)
    ),
    "cosine_similarity": net(
        lambda m, x, i: x * F.cosine_similarity(x, m.c(x), 1).unsqueeze(1), c=conv(12, 12)
    ),
    "tied by add": net(
        lambda m, x, i: x + m.e(m.i)[:, 0].view(1, -1, 1, 1),
        e=lambda: nn.Embedding(12, 2),
        i=table(*range(12)),
    ),
}
"""By a word of the reason; the stem, or the layer before what keeps it, stays."""


STEM = ("stem.weight", 0)


def captured(case):
    return capture(randomised(case()), (torch.randn(2, 3, 8, 8).double(),), name="case")


@pytest.mark.parametrize("name", EXACT)
def test_channels_are_followed(name):
    units, case = EXACT[name] if isinstance(EXACT[name], tuple) else (12, EXACT[name])
    program = captured(case)
    channels = analyse(program)
    found = [
        g.size for g in channels.groups if any((m.parameter, m.dim) == ("stem.weight", 0) for m in g.members)
    ]
    assert sum(found) == units, channels.frozen
    assert not channels.unknown
    for seed, batch in ((0, 1), (1, 3)):
        pruned(program, seed=seed, batch=2 if program.inputs[0].shape[0] else batch)


@pytest.mark.parametrize("word", KEPT)
def test_channels_are_kept_with_a_reason(word):
    program = captured(KEPT[word])
    layer = "c.weight" if word == "strided" else "stem.weight"
    frozen = [f for f in analyse(program).frozen if (f.parameter, f.dim) == (layer, 0)]
    assert sum(f.count for f in frozen) >= 6
    assert any(word in f.reason for f in frozen), frozen
    pruned(program, seed=0, batch=3)
