"""Weights under a constraint, against their definitions and closed forms."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import registry
from toolchain.contracts import Silent
from toolchain.program.capture import capture
from toolchain.program.merging import merged
from toolchain.train.constraint import Shape, Sparse, lamp
from toolchain.train.forms.binary import binary
from toolchain.train.forms.fixed import FORM as FIXED
from toolchain.train.forms.fixed import fixed
from toolchain.train.forms.palette import FORM as PALETTE
from toolchain.train.forms.palette import kmeans, shared
from toolchain.train.forms.ternary import ternary
from toolchain.train.latent import Latent
from toolchain.train.loop import fine_tune
from toolchain.train.metric import resolve
from toolchain.values import Training

AGP = registry.find("toolchain.prune.schedules", "SCHEDULE", "agp")


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    return capture(made, (torch.randn(2, 3, 8, 8),), name="net")


def test_kmeans_is_lloyds_algorithm():
    """Against the plain one, from the same beginning: distances to every centre, means of what is nearest."""
    values = np.random.default_rng(0).standard_normal(500)
    centres = np.linspace(values.min(), values.max(), 8)
    for _ in range(200):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.array([values[nearest == k].mean() for k in range(8)])
    found, numbers = kmeans(values, 8)
    np.testing.assert_allclose(found, centres, atol=1e-6)
    np.testing.assert_array_equal(numbers, np.abs(values[:, None] - found).argmin(1))


def test_kmeans_of_few_values_is_exact():
    values = np.array([3.0, -1.0, 3.0, 0.5])
    found, numbers = kmeans(values, 4)
    np.testing.assert_array_equal(found[numbers], values)


def test_palettes_of_groups_are_their_own_and_zeros_stay():
    torch.manual_seed(0)
    weight = torch.randn(8, 4, 3, 3)
    weight[torch.rand(8, 4, 3, 3) < 0.5] = 0
    values, owners = shared(weight, 2, 4, keep_zeros=True)
    found = values[owners]
    assert torch.equal(found == 0, weight == 0)
    for part in (found[:4], found[4:]):
        assert len(part.unique()) == 4
    assert not set(found[:4].unique().tolist()) & (set(found[4:].unique().tolist()) - {0.0})


def net():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    return capture(made.eval(), (torch.randn(2, 6),), name="net")


NAMES = ("1.weight", "3.weight")


def shape(setting, **more):
    return Shape(setting=setting, inner=NAMES, edges=(), sparse=False, **more)


def backward(module):
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    module(torch.randn(5, 6)).square().sum().backward()


def test_weights_of_one_value_get_the_mean_of_their_gradients():
    program = net()
    constraint = PALETTE.begin(program, shape(2))
    module = copy.deepcopy(program.module)
    constraint.start(module)
    backward(module)
    weight, gradient = module.get_parameter("1.weight"), module.get_parameter("1.weight").grad.clone()
    constraint.backward(module)
    for value in weight.detach().unique():
        where = weight.detach() == value
        torch.testing.assert_close(weight.grad[where], gradient[where].mean().expand(int(where.sum())))


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.24, 0.25), (0.124, 0.0), (0.125, 0.25), (5.0, 1.75), (-5.0, -2.0), (-0.3, -0.25)]
)
def test_fixed_point_is_the_nearest_multiple_within_its_range(value, wanted):
    """2.2: multiples of a quarter from -2 to 1.75."""
    assert float(fixed(torch.tensor([value]), 2, 2)) == wanted


def test_stochastic_rounding_has_no_bias_and_goes_to_a_neighbour():
    values = torch.full((200_000,), 0.3)
    found = fixed(values, 2, 2, stochastic=True, generator=torch.Generator().manual_seed(0))
    assert set(found.unique().tolist()) == {0.25, 0.5}
    assert float(found.mean()) == pytest.approx(0.3, abs=4 * 0.25 * 0.4 / 200_000**0.5)


def test_small_steps_count_on_average_with_stochastic_rounding_and_not_at_all_with_the_nearest():
    """Gupta et al., section 3: a tenth of a step, a hundred times."""
    program = net()
    moved = {}
    for rounding in ("nearest", "stochastic"):
        constraint = FIXED.begin(program, shape((2, 4), rounding=rounding, seed=3))
        module = copy.deepcopy(program.module)
        constraint.start(module)
        before = {n: w.clone() for n, w in constraint.weights(module).items()}
        torch.manual_seed(2)
        for _ in range(10):
            for weight in constraint.weights(module).values():
                weight.add_(0.1 / 16)
            constraint.settle(module)
        after = constraint.weights(module)
        moved[rounding] = float(torch.cat([(after[n] - before[n]).reshape(-1) for n in NAMES]).mean())
    assert moved["nearest"] == 0
    assert moved["stochastic"] == pytest.approx(1 / 16, rel=0.4)


def test_ternary_weights_are_those_of_the_paper():
    torch.manual_seed(0)
    weight = torch.randn(4, 50)
    found = ternary(weight)
    for row, made in zip(weight, found, strict=True):
        delta = 0.7 * row.abs().mean()
        large = row.abs() > delta
        scale = row.abs()[large].mean()
        torch.testing.assert_close(made, torch.where(large, scale * row.sign(), 0.0), rtol=1e-3, atol=0)
    assert torch.equal(ternary(found), found)


def test_binary_weights_are_the_closest_of_two_values():
    torch.manual_seed(0)
    weight = torch.randn(4, 50)
    found = binary(weight)
    torch.testing.assert_close(found, weight.abs().mean(1, keepdim=True) * weight.sign(), rtol=1e-3, atol=0)
    assert torch.equal(binary(found), found)
    error = (weight - found).square().sum()
    assert error < (weight - 1.01 * found).square().sum()
    assert error < (weight - 0.99 * found).square().sum()


def test_real_weights_learn_behind_those_of_few_values():
    module = copy.deepcopy(net().module)
    constraint = Latent(NAMES, "binary", binary)
    real = module.get_parameter("1.weight").detach().clone()
    constraint.forward(module)
    few = module.get_parameter("1.weight").detach().clone()
    assert torch.equal(few, binary(real))
    backward(module)
    constraint.backward(module)
    assert torch.equal(module.get_parameter("1.weight").detach(), real)
    assert module.get_parameter("1.weight").grad.abs().sum() > 0
    constraint.rest(module)
    assert torch.equal(module.get_parameter("1.weight").detach(), few)


def test_lamp_is_the_share_of_what_is_no_smaller():
    weight = torch.tensor([[3.0, -1.0], [2.0, 0.0]])
    wanted = torch.tensor([[9 / 9, 1 / 14], [4 / 13, 0]], dtype=torch.float64)
    torch.testing.assert_close(lamp(weight), wanted)


def test_sparse_weights_reach_their_share_and_stay_zero(program, data, tmp_path):
    names = tuple(n for n, p in program.module.named_parameters() if p.dim() > 1)
    constraint = Sparse(names, 0.8, AGP)
    found = fine_tune(
        program, teacher=None, data=data, metric=resolve("top1"), folder=tmp_path,
        training=Training(epochs=3, lr=0.05, batch_size=32), progress=Silent(), constraint=constraint,
    )  # fmt: skip
    weights = constraint.weights(found.program.module)
    total, zeros = (
        sum(w.numel() for w in weights.values()),
        sum(int((w == 0).sum()) for w in weights.values()),
    )
    assert zeros == int(0.8 * total)
    assert found.best_epoch >= 2, "earlier ones do not have all zeros yet"
    assert all(bool((w != 0).any()) for w in weights.values()), "something is left of every layer"
    assert found.best_value > 80


def test_sparse_ended_early_has_its_zeros_all_the_same(program, data, tmp_path):
    names = tuple(n for n, p in program.module.named_parameters() if p.dim() > 1)
    constraint = Sparse(names, 0.8, AGP)
    found = fine_tune(
        program, teacher=None, data=data, metric=resolve("top1"), folder=tmp_path,
        training=Training(epochs=3), progress=Silent(), constraint=constraint, finish=True,
    )  # fmt: skip
    constraint.finish(found.program.module)
    assert constraint.complete(found.program.module)


def test_sparse_goes_along_its_schedule():
    module = copy.deepcopy(net().module)
    constraint = Sparse(NAMES, 0.5, AGP)
    shares = []
    for step in range(101):
        constraint.due(module, step, 100)
        shares.append(sum(int((w == 0).sum()) for w in constraint.weights(module).values()) / 36)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 0.5)
    assert shares[25] == pytest.approx(0.5 * AGP.removed(0.25), abs=1 / 36)


def test_norms_go_into_their_layers_which_can_be_trained_on():
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 2, groups=2), nn.BatchNorm2d(6), nn.Flatten(), nn.LazyLinear(2),
    )  # fmt: skip
    made.train()
    for _ in range(5):
        made(torch.randn(8, 3, 6, 6))
    program = capture(made.eval(), (torch.randn(2, 3, 6, 6),), name="net")
    found = merged(program)
    x = torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(found.module(x), program.module(x), rtol=1e-4, atol=1e-5)
    names = set(dict(found.module.named_parameters()))
    assert names == {"0.weight", "0.bias", "3.weight", "3.bias", "6.weight", "6.bias"}
    assert not list(found.module.named_buffers())
    assert {"1.weight", "4.weight"} <= set(dict(program.module.named_parameters()))
    assert merged(found) is found
