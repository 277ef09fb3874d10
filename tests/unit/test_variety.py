"""Variety: doubles of better filters are worth nothing, rare ones what they were."""

import pytest
import torch
from torch import nn

from toolchain import registry
from toolchain.contracts import Evidence
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.prune.variety import filters, rarer, varied


def test_a_double_is_worth_nothing_and_the_better_one_all():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]], dtype=torch.float64)
    assert rarer((5.0, 1.0, 4.0), vectors) == (5.0, 1.0, 0.0)
    assert rarer((4.0, 1.0, 4.0), vectors) == (4.0, 1.0, 0.0), "of equals the first one stays"


def test_what_is_opposite_or_at_right_angles_is_rare():
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert rarer((3.0, 2.0, 1.0), vectors) == (3.0, 2.0, 1.0)


def test_in_between_it_is_the_cosine_to_the_nearest_better_one():
    vectors = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 1.0]], dtype=torch.float64)
    assert rarer((2.0, 1.0, 9.0), vectors) == pytest.approx(
        (2 * (1 - 0.5**0.5), 1 * (1 - 7 / (5 * 2**0.5)), 9.0)
    )


def test_zero_filters_are_nobody_s_doubles():
    assert rarer((1.0, 1.0), torch.zeros(2, 3, dtype=torch.float64)) == (1.0, 1.0)


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 5)
    )
    with torch.no_grad():
        network[0].weight[4] = 0.5 * network[0].weight[1]
    return capture(network, (torch.randn(2, 3, 8, 8),), name="doubles")


def test_it_wraps_a_criterion_and_finds_the_double(program):
    channels = analyse(program)
    magnitude = registry.find("toolchain.prune.criteria", "CRITERION", "magnitude")
    plain = magnitude.score(program, channels, Evidence())
    found = varied(magnitude).score(program, channels, Evidence())
    first = channels.groups[0].name
    worse = min((1, 4), key=lambda unit: plain[first][unit])
    assert found[first].index(min(found[first])) == worse
    assert found[first][worse] == pytest.approx(0.0, abs=1e-6)
    assert all(0 <= a <= b for name in plain for a, b in zip(found[name], plain[name], strict=True))
    assert max(found[first]) == max(plain[first])
    assert varied(magnitude).name == "magnitude, varied"


def test_filters_are_those_of_the_layers_that_put_a_channel_out(program):
    channels = analyse(program)
    assert filters(program, channels.groups[0]).shape == (6, 27)
    assert filters(program, channels.groups[1]).shape == (4, 6)
