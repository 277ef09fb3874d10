"""Attention, however it is written: heads, inner widths of q with k and of v, embedding: all independent.

Every case is pruned unevenly at random, twice, at other batch sizes, and compared with the masked original.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.networks import randomised
from tests.oracle import pruned
from toolchain.program.capture import capture
from toolchain.program.channels import analyse

TOKENS, WIDTH, HEADS, INNER = 7, 10, 3, 4
PACKED = 3 * HEADS * INNER


class Net(nn.Module):
    """An embedding of `WIDTH`, attention as the case writes it, a projection and a head."""

    def __init__(self, attend, modules, out):
        super().__init__()
        self.attend = attend
        self.embed, self.out, self.head = nn.Linear(6, WIDTH), nn.Linear(out, WIDTH), nn.Linear(WIDTH, 3)
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        x = self.embed(x)
        return self.head(x + self.out(self.attend(self, x)))


def case(attend, expected, out=HEADS * INNER, **modules):
    return attend, expected, out, modules


def joined(y):
    """[n, h, t, d] -> [n, t, h * d]."""
    return y.transpose(1, 2).flatten(2)


def heads(y, count=HEADS):
    """[n, t, h * d] -> [n, h, t, d]."""
    return y.view(y.shape[0], y.shape[1], count, -1).transpose(1, 2)


def attended(q, k, v):
    return joined(F.scaled_dot_product_attention(q, k, v))


def timm_packed(m, x):
    n, t, _ = x.shape
    q, k, v = m.qkv(x).reshape(n, t, 3, HEADS, INNER).permute(2, 0, 3, 1, 4).unbind(0)
    return attended(q, k, v)


def by_number(m, x):
    qkv = m.qkv(x).view(-1, TOKENS, 3, HEADS, INNER).permute(2, 0, 3, 1, 4)
    return attended(qkv[0], qkv[1], qkv[2])


def heads_outside(m, x):
    q, k, v = m.qkv(x).unflatten(-1, (HEADS, 3, INNER)).unbind(3)
    return attended(*(y.transpose(1, 2) for y in (q, k, v)))


def chunked(m, x):
    return attended(*(heads(y) for y in m.qkv(x).chunk(3, -1)))


def uneven_within_heads(m, x):
    q, k, v = m.qkv(x).view(-1, TOKENS, HEADS, 9).split([2, 2, 5], 3)
    return attended(*(y.transpose(1, 2) for y in (q, k, v)))


def packed_pair(m, x):
    k, v = m.kv(x).reshape(-1, TOKENS, 2, HEADS, INNER).permute(2, 0, 3, 1, 4).unbind(0)
    return attended(heads(m.q(x)), k, v)


def by_hand(m, x):
    q, k, v = m.qkv(x).reshape(-1, TOKENS, 3, HEADS, INNER).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (q * INNER**-0.5) @ k.transpose(-2, -1) + m.bias
    return joined(F.dropout(scores.softmax(-1), 0.1, m.training) @ v)


def einsummed(m, x):
    q, k, v = (f(x).unflatten(2, (HEADS, -1)) for f in (m.q, m.k, m.v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 2
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)


def batched(m, x):
    """Heads folded into the batch, for bmm."""
    n, t, _ = x.shape
    q, k, v = (f(x).view(n, t, HEADS, -1).transpose(1, 2).reshape(n * HEADS, t, -1) for f in (m.q, m.k, m.v))
    y = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
    return y.view(n, HEADS, t, -1).transpose(1, 2).reshape(n, t, -1)


def masked(m, x):
    q, k, v = (heads(f(x)) for f in (m.q, m.k, m.v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=m.bias, dropout_p=0.0, scale=0.3)
    return joined(y + F.scaled_dot_product_attention(q, k, v, is_causal=True))


def position_table(m, x):
    bias = m.table[m.index.view(-1)].view(TOKENS, TOKENS, HEADS).permute(2, 0, 1).contiguous().unsqueeze(0)
    q, k, v = m.qkv(x).reshape(-1, TOKENS, 3, HEADS, INNER).permute(2, 0, 3, 1, 4).unbind(0)
    return joined((q @ k.transpose(-2, -1) + bias).softmax(-1) @ v)


def cross(m, x):
    return m.mha(x, m.memory.expand(x.shape[0], -1, -1), m.other.expand(x.shape[0], -1, -1))[0]


def packed_module(m, x):
    return m.mha(x, x, x, need_weights=False)[0]


def grouped(repeat):
    def attend(m, x):
        q, k, v = heads(m.q(x), 4), heads(m.k(x), 2), heads(m.v(x), 2)
        return joined(repeat(q, k, v))

    return attend


def native(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def interleaved(q, k, v):
    return F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))


def expanded(q, k, v):
    k, v = (y[:, :, None].expand(-1, -1, 2, -1, -1).reshape(-1, 4, TOKENS, y.shape[3]) for y in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


def five_dimensional(q, k, v):
    q = q.view(-1, 2, 2, TOKENS, INNER)
    scores = q @ k.unsqueeze(2).transpose(-2, -1)
    return (scores.softmax(-1) @ v.unsqueeze(2)).flatten(1, 2)


def one_for_all(m, x):
    """Multi-query attention: one head of k and v for all of q."""
    k, v = m.k(x).unsqueeze(1), m.v(x).unsqueeze(1)
    return joined((heads(m.q(x)) @ k.transpose(-2, -1)).softmax(-1) @ v)


def over_channels(m, x):
    """XCiT, DaViT: [d, d] scores per head."""
    q, k, v = m.qkv(x).reshape(-1, TOKENS, 3, HEADS, INNER).permute(2, 0, 3, 4, 1).unbind(0)
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    return (((q @ k.transpose(-2, -1)) * m.heat).softmax(-1) @ v).permute(0, 3, 1, 2).reshape(-1, TOKENS, 12)


def linear(before, after):
    return nn.Linear(before, after)


def triple(inner_v=INNER):
    wide = HEADS * INNER
    return {"q": linear(WIDTH, wide), "k": linear(WIDTH, wide), "v": linear(WIDTH, HEADS * inner_v)}


def packed():
    return {"qkv": linear(WIDTH, PACKED)}


def grouped_modules():
    return {"q": linear(WIDTH, 16), "k": linear(WIDTH, 8), "v": linear(WIDTH, 8)}


SPLIT = {"qkv": [HEADS, INNER, INNER]}
"""Sizes of the groups by the layer they are named after: heads, inner width of q and k, inner width of v."""
APART = {"q": [HEADS, INNER], "v": [INNER]}
GROUPED = {"q": [2, 2, INNER], "v": [INNER]}
PACKED_MODULE = {"mha.in_proj_weight": [2, 5, 5], "mha.out_proj": [WIDTH]}
CASES = {
    "packed": case(timm_packed, SPLIT, **packed()),
    "packed, by number": case(by_number, SPLIT, **packed()),
    "packed within heads": case(heads_outside, SPLIT, **packed()),
    "packed, chunked": case(chunked, SPLIT, **packed()),
    "packed unevenly within heads": case(uneven_within_heads, {"qkv": [2, 3, 5]}, 15, qkv=linear(WIDTH, 27)),
    "packed keys and values": case(packed_pair, {"kv": [3, 4, 4]}, q=linear(WIDTH, 12), kv=linear(WIDTH, 24)),
    "by hand": case(by_hand, SPLIT, **packed(), bias=nn.Buffer(torch.rand(1, 1, TOKENS, TOKENS))),
    "einsum": case(einsummed, {**APART, "v": [5]}, 15, **triple(5)),
    "heads in the batch": case(batched, {**APART, "v": [5]}, 15, **triple(5)),
    "mask, causal": case(masked, APART, **triple(), bias=nn.Buffer(torch.rand(TOKENS, TOKENS))),
    "table of positions": case(
        position_table,
        SPLIT,
        **packed(),
        table=nn.Parameter(torch.rand(13, HEADS)),
        index=nn.Buffer(torch.arange(TOKENS)[:, None] - torch.arange(TOKENS) + 6),
    ),
    "nn.MultiheadAttention": case(
        packed_module,
        PACKED_MODULE,
        WIDTH,
        mha=nn.MultiheadAttention(WIDTH, 2, batch_first=True),
    ),
    "nn.MultiheadAttention, sequence first": case(
        packed_module,
        PACKED_MODULE,
        WIDTH,
        mha=nn.MultiheadAttention(WIDTH, 2),
    ),
    "cross-attention of other widths": case(
        cross,
        {
            "mha.q_proj_weight": [2, 5],
            "mha.v_proj_weight": [5, 9],
            "memory": [5, 8],
            "mha.out_proj": [WIDTH],
        },
        WIDTH,
        mha=nn.MultiheadAttention(WIDTH, 2, kdim=8, vdim=9, batch_first=True),
        memory=nn.Parameter(torch.rand(1, 5, 8)),
        other=nn.Parameter(torch.rand(1, 5, 9)),
    ),
    "grouped queries, native": case(grouped(native), GROUPED, 16, **grouped_modules()),
    "grouped queries, interleaved": case(grouped(interleaved), GROUPED, 16, **grouped_modules()),
    "grouped queries, expanded": case(grouped(expanded), GROUPED, 16, **grouped_modules()),
    "grouped queries, five dimensions": case(grouped(five_dimensional), GROUPED, 16, **grouped_modules()),
    "one key for all queries": case(
        one_for_all,
        {"q": [3], "k": [4], "v": [4]},
        q=linear(WIDTH, 12),
        k=linear(WIDTH, 4),
        v=linear(WIDTH, 4),
    ),
    "over channels": case(
        over_channels,
        {"qkv": [3, 4, 4]},
        **packed(),
        heat=nn.Parameter(torch.rand(HEADS, 1, 1)),
    ),
}


def sizes(program):
    """Sizes of the groups by the layer that they are named after."""
    found = {}
    for group in analyse(program).groups:
        found.setdefault(group.name.split("#")[0], []).append(group.size)
    return {name: sorted(each) for name, each in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_what_goes_alone_goes_alone(name):
    attend, expected, out, modules = CASES[name]
    network = randomised(Net(attend, modules, out))
    x = torch.randn(2, TOKENS, 6, dtype=torch.float64)
    program = capture(network, (x,), name=name)
    with torch.no_grad():
        torch.testing.assert_close(program.module(x), network(x))
    assert sizes(program) == {"embed": [WIDTH], **expected}
    for seed in range(3):
        small = pruned(program, seed=seed, batch=3)
        pruned(small, seed=seed, batch=1)


def test_a_pruned_attention_is_captured_again():
    attend, _, out, modules = CASES["packed"]
    x = torch.randn(2, TOKENS, 6, dtype=torch.float64)
    program = capture(randomised(Net(attend, modules, out)), (x,), name="packed")
    small = pruned(program, seed=4, batch=2)
    again = capture(small.module, (x,), name="again")
    assert sizes(again) == sizes(small)
    pruned(again, seed=5, batch=4)
