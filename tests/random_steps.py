"""More steps of random networks: blocks of several operators that real networks repeat."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


def channels_last(n):
    """Channels go last for a gated MLP with layer norm and a layer scale, and come back."""
    i = n._pick()
    width, hidden = n.shapes[i][0], n.draw.choice([4, 6, 10])
    norm, up = n._part(nn.LayerNorm(width)), n._part(nn.Linear(width, 2 * hidden))
    down, scale = n._part(nn.Linear(hidden, width)), n._vector(width)

    def run(found):
        y = up(norm(found[i].permute(0, 2, 3, 1)))
        gate, y = y.chunk(2, -1)
        return found[i] + (n.raw[scale] * down(F.gelu(gate) * y)).permute(0, 3, 1, 2)

    n._add("mlp", run, n.shapes[i], i)
    return True


def attended_branches(n):
    """Two branches stacked, summed, squeezed, and weighed by a softmax over the branches."""
    i = n._pick()
    width = n.shapes[i][0]
    branches = [n._part(nn.Conv2d(width, width, k, padding=k // 2)) for k in (1, 3)]
    squeeze, excite = n._part(nn.Linear(width, 4)), n._part(nn.Linear(4, 2 * width))

    def run(found):
        y = torch.stack([branch(found[i]) for branch in branches], 1)
        share = excite(F.relu(squeeze(y.sum(1).mean((2, 3))))).view(-1, 2, width).softmax(1)
        return (y * share[..., None, None]).sum(1)

    n._add("branches", run, n.shapes[i], i)
    return True


def spatially_gated(n):
    """A gate for every place, from the mean and the largest of all channels."""
    i = n._pick()
    gate = n._part(nn.Conv2d(2, 1, 3, padding=1))

    def run(found):
        y = found[i]
        both = torch.cat([y.mean(1, keepdim=True), y.max(1, keepdim=True)[0]], 1)
        return y * torch.sigmoid(gate(both))

    n._add("place-gate", run, n.shapes[i], i)
    return True


def interleaved(n):
    """Every second channel is replaced in place."""
    i = n._pick(where=lambda s: s[0] >= 4)
    if i is None:
        return False
    start = n.draw.choice([0, 1])

    def run(found):
        y = found[i].clone()
        y[:, start::2] = torch.tanh(found[i][:, start::2]) * 0.5
        return y

    n._add(f"interleave:{start}", run, n.shapes[i], i)
    return True


def unfolded(n):
    """Patches as columns, a matrix product, and an image again."""
    i = n._pick(where=lambda s: s[0] <= 8)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    after = n.draw.choice([4, 6])
    mix = n._part(nn.Linear(width * 9, after))

    def run(found):
        columns = F.unfold(found[i], 3, padding=1).transpose(1, 2)
        return mix(columns).transpose(1, 2).unflatten(2, (h, w))

    n._add("unfold", run, (after, h, w), i)
    return True


def patches_to_channels(n):
    """Places of 2 x 2 patches become channels, by a view and a permutation or by strided slices."""
    i = n._pick(where=lambda s: s[0] <= 8 and s[1] >= 4)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    by_view = n.draw.random() < 0.5

    def run(found):
        y = found[i]
        if by_view:
            y = y.reshape(-1, width, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
            return y.reshape(-1, 4 * width, h // 2, w // 2)
        return torch.cat([y[..., a::2, b::2] for b in (0, 1) for a in (0, 1)], 1)

    n._add("patches", run, (4 * width, h // 2, w // 2), i)
    return True


def pool_and_back(n):
    """Pooling that remembers places, and its inverse."""
    i = n._pick(where=lambda s: s[1] >= 4)
    if i is None:
        return False
    width, h, w = n.shapes[i]
    inner = n._part(nn.Conv2d(width, width, 1))
    # Equal values (flat regions) would be told apart by rounding alone, which differs between two networks.
    slope = torch.linspace(0, 0.1, h * w, dtype=torch.float64).reshape(h, w)

    def run(found):
        y, places = F.max_pool2d(found[i] + slope, 2, return_indices=True)
        return F.max_unpool2d(inner(y), places, 2)

    n._add("unpool", run, n.shapes[i], i)
    return True


def correlated(n):
    """Channels weighed by their correlations: a product of the channels with themselves."""
    i = n._pick()
    h, w = n.shapes[i][1:]

    def run(found):
        y = torch.tanh(found[i]).flatten(2)
        gram = (y @ y.transpose(1, 2) / (h * w)).softmax(-1)
        return (gram @ y).unflatten(2, (h, w)) + found[i]

    n._add("gram", run, n.shapes[i], i)
    return True


MORE_KINDS = (
    (channels_last, 2),
    (attended_branches, 1),
    (spatially_gated, 1),
    (interleaved, 1),
    (unfolded, 1),
    (patches_to_channels, 1),
    (pool_and_back, 1),
    (correlated, 1),
)
