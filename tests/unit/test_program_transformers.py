"""What is put around attention: rotary positions, norms of q and k, mixed heads, tables, encoder layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.networks import randomised
from tests.oracle import pruned
from toolchain.program.capture import capture
from toolchain.program.channels import analyse

TOKENS, WIDTH, HEADS, INNER = 7, 10, 3, 4


class Net(nn.Module):
    """Embedding, packed attention with something done to q and k or to the scores, and a head."""

    def __init__(self, turn, mix, modules):
        super().__init__()
        self.turn, self.mix = turn, mix
        self.embed, self.qkv = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3 * HEADS * INNER)
        self.out, self.head = nn.Linear(HEADS * INNER, WIDTH), nn.Linear(WIDTH, 3)
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        x = self.embed(x)
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, HEADS, INNER).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.turn(self, q, "q"), self.turn(self, k, "k")
        scores = self.mix(self, (q @ k.transpose(-2, -1)) / 2)
        return self.head(x + self.out((scores @ v).transpose(1, 2).reshape(n, t, -1)))


def as_it_is(m, x, name):
    return x


def shares(m, scores):
    return scores.softmax(-1)


def rotated_halves(m, x, name):
    a, b = x.chunk(2, -1)
    return x * m.cos + torch.cat((-b, a), -1) * m.sin


def rotated_pairs(m, x, name):
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
    return x * m.cos + turned * m.sin


def rotated_complex(m, x, name):
    pairs = torch.view_as_complex(x.reshape(-1, HEADS, TOKENS, INNER // 2, 2))
    return torch.view_as_real(pairs * m.turns).flatten(3)


def normed(m, x, name):
    return getattr(m, name + "_norm")(x)


def unit(m, x, name):
    return F.normalize(x, dim=-1)


def talking(m, scores):
    """Linear maps between heads, before and after the softmax."""
    scores = m.before(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
    return m.after(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def placed(m, scores):
    """Swin v2: a scale for each head, and a position bias that a small network computes."""
    bias = 16 * torch.sigmoid(m.bias(m.table).view(-1, HEADS)[m.index.view(-1)].view(TOKENS, TOKENS, HEADS))
    scale = torch.clamp(m.scale, max=4.6).exp()
    return (scores * scale + bias.permute(2, 0, 1).contiguous().unsqueeze(0)).softmax(-1)


def angles():
    return {"cos": nn.Buffer(torch.rand(TOKENS, INNER)), "sin": nn.Buffer(torch.rand(TOKENS, INNER))}


CASES = {
    "rotary, halves": (rotated_halves, shares, angles(), [2, HEADS, INNER]),
    "rotary, pairs": (rotated_pairs, shares, angles(), [2, HEADS, INNER]),
    "rotary, complex": (
        rotated_complex,
        shares,
        {"turns": nn.Buffer(torch.randn(TOKENS, INNER // 2, dtype=torch.complex128))},
        [2, HEADS, INNER],
    ),
    "layer norm of q and k": (
        normed,
        shares,
        {"q_norm": nn.LayerNorm(INNER), "k_norm": nn.LayerNorm(INNER)},
        [HEADS, INNER, INNER],
    ),
    "rms norm of q and k": (
        normed,
        shares,
        {"q_norm": nn.RMSNorm(INNER), "k_norm": nn.RMSNorm(INNER)},
        [HEADS, INNER, INNER],
    ),
    "unit length, scale, computed bias": (
        unit,
        placed,
        {
            "scale": nn.Parameter(torch.rand(HEADS, 1, 1)),
            "bias": nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, HEADS, bias=False)),
            "table": nn.Buffer(torch.rand(1, 13, 1, 2)),
            "index": nn.Buffer(torch.arange(TOKENS)[:, None] - torch.arange(TOKENS) + 6),
        },
        [HEADS, INNER, INNER],
    ),
    "talking heads": (
        as_it_is,
        talking,
        {"before": nn.Linear(HEADS, HEADS), "after": nn.Linear(HEADS, HEADS)},
        [HEADS, HEADS, INNER, INNER],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_around_attention(name):
    turn, mix, modules, expected = CASES[name]
    x = torch.randn(2, TOKENS, 6, dtype=torch.float64)
    program = capture(randomised(Net(turn, mix, modules)), (x,), name=name)
    groups = analyse(program).groups
    assert (
        sorted(g.size for g in groups if any(m.parameter == "qkv.weight" and m.dim == 0 for m in g.members))
        == expected
    )
    for seed in range(3):
        pruned(pruned(program, seed=seed, batch=3), seed=seed, batch=1)


class Words(nn.Module):
    """Tables of words and places, an encoder layer, and the word table again as the head."""

    def __init__(self, tied):
        super().__init__()
        self.words, self.places = nn.Embedding(20, 12), nn.Embedding(TOKENS, 12)
        self.layer = nn.TransformerEncoderLayer(12, HEADS, 20, batch_first=True, norm_first=True)
        self.head = nn.Linear(12, 20, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, x):
        y = self.words(x) + self.places(torch.arange(x.shape[1]))
        return self.head(self.layer(y)[:, 0])


@pytest.mark.parametrize("tied", [False, True])
def test_tables_lose_width_and_no_entries(tied):
    program = capture(randomised(Words(tied)), (torch.randint(0, 8, (2, TOKENS)),), name="words")
    channels = analyse(program)
    assert sorted(g.size for g in channels.groups) == [HEADS, INNER, INNER, 12, 20]
    entries = {f.parameter for f in channels.frozen if "entries of a table" in f.reason}
    assert entries == {"head.weight" if tied else "words.weight", "places.weight"}
    for seed in range(3):
        pruned(pruned(program, seed=seed, batch=3), seed=seed, batch=1)
