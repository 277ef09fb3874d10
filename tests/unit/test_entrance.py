"""Inputs that leave a network: exact, whatever listens to them; what cannot leave is refused or stays."""

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.networks import TOPOLOGIES, Chain, randomised
from toolchain.errors import InputError, UnsupportedError
from toolchain.input_view import InputView, described, ranges
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse
from toolchain.program.entrance import entrance, lit, masked, narrowed, seeing_whole, unmasked
from toolchain.program.gating import multiplied
from toolchain.train.viewed import handed


def images(network):
    return capture(network, (torch.randn(2, 3, 12, 12).double(),), name="images")


@pytest.fixture(scope="module")
def eager():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    ).double()


@pytest.fixture(scope="module")
def pooled(eager):
    return images(eager)


@pytest.fixture(scope="module")
def flat():
    torch.manual_seed(0)
    return images(nn.Sequential(nn.Flatten(), nn.Linear(432, 10), nn.ReLU(), nn.Linear(10, 4)).double())


def close(found, wanted):
    with torch.no_grad():
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_channels_leave_as_if_they_were_zero(pooled):
    small = narrowed(pooled, InputView(shape=(3, 12, 12), kept=(0, 2)))
    assert small.inputs[0].shape == (None, 2, 12, 12)
    assert small.module.get_parameter("0.weight").shape == (8, 2, 3, 3)
    x = torch.randn(5, 3, 12, 12).double()
    zero = x.clone()
    zero[:, 1] = 0
    close(small.module(x[:, [0, 2]]), pooled.module(zero))
    assert [g.name for g in analyse(small).groups] == [g.name for g in analyse(pooled).groups]


def test_pixels_leave_a_network_that_flattens_them(flat):
    kept = tuple(sorted(random.Random(0).sample(range(432), 100)))
    view = InputView(shape=(3, 12, 12), flat=True, kept=kept)
    small = narrowed(flat, view)
    assert small.inputs[0].shape == (None, 100)
    assert small.module.get_parameter("1.weight").shape == (10, 100)
    x = torch.randn(5, 3, 12, 12).double()
    zero = torch.zeros(5, 432).double()
    zero[:, kept] = x.flatten(1)[:, kept]
    close(small.module(handed(x, view)), flat.module(zero.reshape(x.shape)))
    close(seeing_whole(small, view).module(x), flat.module(zero.reshape(x.shape)))


def test_features_leave_with_their_normalisation():
    """What a norm before the first layer makes of a missing feature is not listened to either."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(7), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    nn.init.normal_(network[0].bias)
    program, x = capture(network, (torch.randn(2, 7).double(),), name="vector"), torch.randn(5, 7).double()
    small = narrowed(program, InputView(shape=(7,), kept=(0, 3, 6)))
    assert small.module.get_parameter("0.weight").shape == (3,)
    found = small.module(x[:, [0, 3, 6]])
    with torch.no_grad():
        network.eval()[1].weight[:, [1, 2, 4, 5]] = 0
        close(found, network(x))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_closed_gates_of_the_input_are_what_leaving_it_out_leaves(name):
    made = randomised(TOPOLOGIES[name]()).double()
    program = capture(made, (torch.randn(2, *made.shape).double(),), name="net")
    try:
        found = entrance(program)
    except UnsupportedError as error:
        pytest.skip(str(error))
    if not found.sites:
        pytest.skip(found.stays)
    gates, gone = {}, set()
    for site in found.sites:
        gates[site.name] = torch.ones(site.size).double()
        for unit in range(0, site.size - site.minimum, 2):
            gates[site.name][unit] = 0
            gone.update(found.positions[site.name][unit])
    view = InputView(shape=found.shape, flat=found.flat)
    kept = tuple(i for i in range(view.count) if i not in gone)
    view = replace(view, kept=kept)
    x = torch.randn(3, *made.shape).double()
    weights = multiplied(dict(program.module.named_parameters()), found.sites, gates)
    closed = torch.func.functional_call(program.module, weights, (x,))
    close(narrowed(program, view).module(handed(x, view)), closed)


def test_a_crop_is_the_network_at_that_size(pooled, eager):
    view = InputView(shape=(3, 12, 12), crop=(2, 4, 8, 7), block=2, blank=((3, 3), (1, 2)))
    x = torch.randn(5, 3, 12, 12).double()
    part = x[:, :, 2:10, 4:11].clone()
    part[:, :, 4:6, 2:4] = 0
    part[:, :, 0:2, 0:2] = 0
    assert torch.equal(handed(x, view), part)
    small = narrowed(pooled, view)
    assert small.inputs[0].shape == (None, 3, 8, 7)
    close(small.module(part), eager.eval()(part))
    whole = seeing_whole(small, view)
    assert whole.inputs == pooled.inputs
    close(whole.module(x), small.module(part))
    assert set(whole.module.state_dict()) == set(small.module.state_dict())


def test_a_mask_of_ones_changes_nothing_and_comes_off(pooled):
    x = torch.randn(2, 3, 12, 12).double()
    close(masked(pooled).module(x), pooled.module(x))
    assert fingerprint(unmasked(masked(pooled))) == fingerprint(pooled)
    view = InputView(shape=(3, 12, 12), block=4, blank=((0, 0), (2, 1)))
    assert lit(view).sum() == 144 - 32


class Two(nn.Module):
    def forward(self, a, b):
        return a + b


@pytest.mark.parametrize(
    ("network", "example", "said"),
    [
        (Two(), (torch.randn(2, 3), torch.randn(2, 3)), "a float32 with 2 dimensions, b float32"),
        (nn.Embedding(10, 3), (torch.randint(0, 9, (2, 5)),), "int64"),
        (nn.Linear(4, 3), (torch.randn(2, 5, 4),), "with 3 dimensions"),
        (
            nn.ReLU(),
            (torch.randn(2, 5),),
            "nothing of the network's input can be left out: reaches an output",
        ),
    ],
)
def test_other_inputs_are_refused(network, example, said):
    with pytest.raises(UnsupportedError, match=said):
        entrance(capture(network, example, name="x"))


def test_views_of_other_networks_are_refused(pooled, flat):
    for program, view in (
        (pooled, InputView(shape=(3, 8, 8), kept=(0,))),
        (pooled, InputView(shape=(3, 12, 12), flat=True, kept=(0,))),
        (pooled, InputView(shape=(3, 12, 12), kept=())),
        (flat, InputView(shape=(3, 12, 12), flat=True, kept=(0, 432))),
    ):
        with pytest.raises(InputError, match="the plan"):
            narrowed(program, view)


def test_what_sees_its_size_is_not_cropped():
    torch.manual_seed(0)
    chain = capture(Chain(), (torch.randn(2, 3, 8, 8),), name="chain")
    with pytest.raises(UnsupportedError, match="linear"):
        narrowed(chain, InputView(shape=(3, 8, 8), crop=(1, 1, 6, 6)))


def test_views_in_words():
    assert ranges((0, 1, 2, 5, 7, 8)) == "0-2, 5, 7-8"
    view = InputView(shape=(3, 12, 12), kept=(0, 2), crop=(2, 4, 8, 7), block=2, blank=((3, 3),))
    assert described(view) == (
        "channels 0, 2 of 3; rows 2-9 and columns 4-10 of 12 x 12; 1 square of 2 x 2 pixels set to 0"
    )
    flat = InputView(shape=(1, 2, 2), flat=True, kept=(0, 1, 3))
    assert described(flat) == "features 0-1, 3 of 4; counted row by row in 1 x 2 x 2"
    assert described(InputView(shape=(9,), kept=(4,))) == "feature 4 of 9"
