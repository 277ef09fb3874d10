"""The same network for smaller images: equal to the eager one there, or refused by operator and node."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.networks import Attention, Chain, FixedView, Grouped, OptionA, Residual, Shuffle, randomised
from toolchain.errors import InputError, UnsupportedError
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.program.resize import fronted, regrouped, resized, smaller_sizes


class Block(nn.Module):
    """Two convolutions with something in between, and a head over the mean."""

    def __init__(self, middle):
        super().__init__()
        self.first, self.second, self.head = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 5, 3),
            nn.Linear(5, 4),
        )
        self.middle = middle

    def forward(self, x):
        return self.head(self.second(self.middle(self.first(x))).mean((2, 3)))


def captured(network, side=16):
    network = randomised(network).float().eval()
    return network, capture(network, (torch.randn(2, 3, side, side),), name="net")


def global_pool(x):
    """Written as CIFAR networks do: the window is a number in the captured graph."""
    return F.avg_pool2d(x, x.shape[-1]).expand(-1, -1, 4, 4)


def tokens(x):
    n, c, h, w = x.shape
    flat = x.reshape(n, c, h * w).transpose(1, 2)
    return (
        F.scaled_dot_product_attention(flat, flat, flat)
        .transpose(1, 2)
        .reshape(n, c, -1, 1)
        .expand(-1, -1, -1, 3)
    )


def class_token(x):
    flat = x.flatten(2)
    return flat[:, :, 0, None, None].expand(-1, -1, 3, 3) * flat[:, :, 1:].mean(2)[:, :, None, None]


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


SIZELESS = {
    "pool over everything": global_pool,
    "attention over positions": tokens,
    "first position": class_token,
    "every other pixel": lambda x: x[:, :, ::2, 1::2],
    "enlarged by a factor": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "padded": lambda x: F.pad(x, (1, 1, 2, 2)),
}


@pytest.mark.parametrize("make", [Residual, OptionA, Grouped, Shuffle])
@pytest.mark.parametrize("size", [(12, 12), (8, 12)])
def test_equals_the_eager_network_at_the_new_size(make, size):
    network, program = captured(make())
    smaller = resized(program, size)
    x = torch.randn(5, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(smaller.module(x), network(x))
    assert smaller.inputs[0].shape == (None, 3, *size)
    assert (smaller.outputs, smaller.inputs[0].name) == (program.outputs, program.inputs[0].name)
    assert analyse(smaller).groups
    assert cost(smaller).macs < cost(program).macs
    own = dict(program.module.named_parameters())
    assert all(p.data_ptr() == own[n].data_ptr() for n, p in smaller.module.named_parameters())


@pytest.mark.parametrize("name", SIZELESS)
def test_operators_that_follow_the_size(name):
    network, program = captured(Block(Lambda(SIZELESS[name])))
    smaller, x = resized(program, (10, 8)), torch.randn(3, 3, 10, 8)
    if name == "pool over everything":
        network.middle = Lambda(lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4))
    with torch.no_grad():
        torch.testing.assert_close(smaller.module(x), network(x))


def half(x):
    return x[:, :, : x.shape[2] // 2]


def windows(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w).mean(3)


def enlarged(x):
    return F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:])


def one_sided(x):
    return F.pad(x, (0, x.shape[3] % 3, 0, 0))


def added_places(x):
    return x + torch.ones(1, 1, x.shape[2], x.shape[3])


BOUND = {
    "slice.Tensor": half,
    "reshape.default": windows,
    "upsample_nearest2d.vec": enlarged,
    "pad.default": one_sided,
    "add.Tensor": added_places,
    "cumsum.default": lambda x: x.cumsum(3),
}


@pytest.mark.parametrize("operator", BOUND)
def test_what_holds_a_size_is_refused_by_name(operator):
    _, program = captured(Block(Lambda(BOUND[operator])))
    with pytest.raises(UnsupportedError, match=rf"the input keeps its size: {operator} \(node \w+\)"):
        resized(program, (12, 12))


@pytest.mark.parametrize(
    ("make", "operator"),
    [(Chain, "linear.default"), (FixedView, "linear.default"), (Attention, "add.Tensor")],
)
def test_flattened_images_and_places_of_tokens_are_refused(make, operator):
    _, program = captured(make(), side=8)
    with pytest.raises(UnsupportedError, match=operator):
        resized(program, (4, 4))


def test_broadcasting_that_comes_about_by_the_new_size_is_refused():
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.place = nn.Conv2d(3, 4, 8, stride=8), nn.Parameter(torch.randn(1, 4, 2, 2))

        def forward(self, x):
            return (self.conv(x) + self.place).mean((2, 3))

    _, program = captured(Places())
    with pytest.raises(UnsupportedError, match=r"add.Tensor .* spread \[3, 4, 1, 1\]"):
        resized(program, (8, 8))


def test_an_output_that_follows_the_size_is_refused():
    _, program = captured(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()))
    with pytest.raises(UnsupportedError, match="output would change its size"):
        resized(program, (8, 8))


def test_only_smaller_images_and_only_images():
    _, program = captured(Residual())
    for size in ((16, 16), (8, 32), (0, 8)):
        with pytest.raises(InputError, match="is not smaller"):
            resized(program, size)
    vector = capture(nn.Linear(3, 2), (torch.randn(2, 3),), name="net")
    with pytest.raises(UnsupportedError, match="does not take one image"):
        resized(vector, (8, 8))


def test_sizes_worth_trying():
    assert smaller_sizes((224, 224), 0.5) == ((192, 192), (160, 160), (128, 128))
    assert smaller_sizes((32, 32), 0.7) == ((28, 28), (24, 24))
    assert smaller_sizes((8, 8), 0.7) == ((7, 7), (6, 6))
    assert smaller_sizes((120, 160), 0.75) == ((112, 144), (96, 128))
    assert smaller_sizes((224, 224), 0.9) == ()


@pytest.mark.parametrize(
    ("before", "result", "now", "wanted"),
    [
        ((3, 8, 4, 4), (3, 2, 4, 4, 4), (3, 8, 2, 2), (3, 2, 4, 2, 2)),
        ((3, 8, 4, 4), (3, 8, 16), (3, 8, 3, 2), (3, 8, 6)),
        ((3, 8, 4), (3, 8, 1, 4), (3, 8, 2), (3, 8, 1, 2)),
        ((3, 8, 4), (3, 8, 2, 2), (3, 8, 2), None),
        ((3, 4, 4), (12, 4), (3, 2, 4), (6, 4)),
    ],
)
def test_reshapes_by_runs_of_equal_products(before, result, now, wanted):
    assert regrouped(before, result, now) == wanted


def test_fronted_reduces_first_and_keeps_names():
    _, program = captured(Residual(), side=8)
    front = fronted(program, (16, 16))
    x = torch.randn(3, 3, 16, 16)
    reduced = F.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(front.module(x), program.module(reduced))
    assert front.inputs[0].shape == (None, 3, 16, 16)
    assert front.module.state_dict().keys() == program.module.state_dict().keys()
