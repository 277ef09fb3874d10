"""Products summed over channels that may go are exact, or of what is kept; copies at capture stay copies."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.networks import randomised
from tests.oracle import deviation, pruned, results
from tests.unit.test_program_traps import conv, net
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.rewrite import apply, mask

NOTE = "computed over the kept channels"


def captured(build):
    return capture(randomised(build()), (torch.randn(2, 3, 8, 8).double(),), name="case")


def energy(y, z):
    """[n, 1, h, w]: the product over all channels, at each place."""
    return torch.einsum("nchw,nchw->nhw", y, z).unsqueeze(1)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def image(y):
    return y.transpose(1, 2).unflatten(2, (8, 8))


def attended(q, k, m, x):
    return image(F.scaled_dot_product_attention(q, k, tokens(m.c(x))))


def in_place(m, x, _image):
    y = torch.sigmoid(x).clone()
    z = F.relu(x)
    z.add_(1)
    return x * energy(y, z)


def centred(m, x, _image):
    w = m.w.sigmoid()
    return x * torch.einsum("nchw,c->nhw", torch.exp(x), w).unsqueeze(1)


NOT_ZERO = {
    "einsum": net(lambda m, x, i: x * energy(torch.sigmoid(x), torch.sigmoid(x))),
    "two tensors": net(lambda m, x, i: x * energy(torch.sigmoid(x), m.c(x).exp()), c=conv(12, 12)),
    "matmul": net(lambda m, x, i: image(tokens(x.cos()) @ x.cos().flatten(2) @ tokens(x))),
    "added number": net(lambda m, x, i: x * energy(x + 0.5, m.c(x) - 0.5), c=conv(12, 12)),
    "attention": net(
        lambda m, x, i: attended(tokens(m.a(x)).sigmoid(), tokens(m.b(x)).sigmoid(), m, x),
        a=conv(12, 5),
        b=conv(12, 5),
        c=conv(12, 12),
    ),
    "tensordot": net(
        lambda m, x, i: x + torch.tensordot(x.exp(), m.w.exp(), ([1], [0]))[..., 0].unsqueeze(1),
        w=lambda: nn.Parameter(torch.randn(12, 2)),
    ),
    "written in place": net(in_place),
    "weights": net(centred, w=lambda: nn.Parameter(torch.randn(12))),
}
ZERO = {
    "plain layers": net(lambda m, x, i: x * energy(m.a(x), m.b(x)), a=conv(12, 9), b=conv(12, 9)),
    "one of them": net(lambda m, x, i: x * energy(torch.sigmoid(x), x * 3)),
    "pointwise": net(lambda m, x, i: x * energy(F.gelu(m.c(x)).tanh() / 7, m.c(x).exp()), c=conv(12, 9)),
    "in place": net(
        lambda m, x, i: x * energy(F.relu(m.c(x), inplace=True).mul_(2), x.exp()), c=conv(12, 12)
    ),
    "gated": net(lambda m, x, i: x * energy(x * x.mean((2, 3), keepdim=True).sigmoid(), x.exp())),
    "normalised": net(lambda m, x, i: x * energy(m.n(x.exp()), x.exp()), n=lambda: nn.BatchNorm2d(12)),
    "attention": net(
        lambda m, x, i: attended(tokens(m.a(x)), tokens(m.b(x)) + m.p, m, x),
        a=conv(12, 5),
        b=conv(12, 5),
        c=conv(12, 12),
        p=lambda: nn.Parameter(torch.randn(64, 5)),
    ),
    "rotary": net(
        lambda m, x, i: image(
            (lambda y: (y * m.p + torch.cat([-y[..., 6:], y[..., :6]], -1) * m.r) @ tokens(x).exp().mT)(
                tokens(m.a(x))
            )
            @ tokens(x)
        ),
        a=conv(12, 12),
        p=lambda: nn.Parameter(torch.randn(64, 12)),
        r=lambda: nn.Parameter(torch.randn(64, 12)),
    ),
    "dropout of heads": net(
        lambda m, x, i: image(
            (
                F.dropout(tokens(m.a(x)).unflatten(2, (3, 4)).transpose(1, 2), 0.1, m.training)
                @ tokens(m.b(x)).exp().unflatten(2, (3, 4)).permute(0, 2, 3, 1)
            )
            .softmax(-1)
            .mean(1)
            @ tokens(x)
        ),
        a=conv(12, 12),
        b=conv(12, 12),
    ),
}


def check(build):
    program = captured(build)
    for seed, batch in ((0, 1), (1, 3), (2, 2)):
        pruned(program, seed=seed, batch=batch)
    return analyse(program)


def sums(channels):
    """Notes on products, not those on sums and means."""
    named = ("einsum", "matmul", "tensordot", "attention")
    return [
        g.note
        for g in channels.groups
        for part in g.note.split("; ")
        if NOTE in part and any(n in part for n in named)
    ]


@pytest.mark.parametrize("name", NOT_ZERO)
def test_products_of_what_is_not_zero_are_summed_over_the_kept_channels_with_a_note(name):
    channels = check(NOT_ZERO[name])
    assert sums(channels)
    assert channels.unknown == {}


@pytest.mark.parametrize("name", ZERO)
def test_products_of_what_is_zero_where_removed_are_exact_and_carry_no_note(name):
    channels = check(ZERO[name])
    assert sums(channels) == []
    assert sum(g.size for g in channels.groups) > 6  # more than the last layer


def doubled(m, x, _image):
    y = x.permute(0, 2, 3, 1).contiguous()
    y.mul_(2)
    return x + y.permute(0, 3, 1, 2)


def flattened(m, x, _image):
    y = x.permute(0, 2, 3, 1).flatten(1)
    y.mul_(2)
    return x + y.unflatten(1, (8, 8, -1)).permute(0, 3, 1, 2)


def reshaped(m, x, _image):
    y = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)
    y.add_(1)
    return x * y.mean(1)[:, None, None, None]


def source_written(m, x, _image):
    y = x.permute(0, 2, 3, 1).contiguous()
    x.add_(1)
    return x + y.permute(0, 3, 1, 2)


def view_written(m, x, _image):
    y = x.permute(0, 2, 3, 1).contiguous()
    y[:, 2:4].zero_()
    return x + y.permute(0, 3, 1, 2)


@pytest.mark.parametrize("body", [doubled, flattened, reshaped, source_written, view_written])
def test_one_channel_left_a_copy_that_is_written_into_is_still_a_copy(body):
    program = captured(net(body))
    channels = analyse(program)
    inputs = example_inputs(program, 3)
    assert {"stem"} <= {g.name for g in channels.groups if g.size == 12}
    for keep in ({"stem": (3,)}, {"stem": (1, 7, 8)}):
        found, wanted = (results(f(program, channels, keep), inputs) for f in (apply, mask))
        assert deviation(found, wanted) < 1e-12


def test_what_is_not_written_into_is_not_copied():
    program = captured(net(lambda m, x, i: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) + x))
    assert "clone" not in str(program.module.graph)
