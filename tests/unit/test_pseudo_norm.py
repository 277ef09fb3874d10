"""The l1/l2 pseudo-norm and its threshold rule against their formulas."""

import math

import pytest
import torch

from toolchain.train.pseudo_norm import kernel_norms, negligible, pseudo_norm


def test_a_kernel_s_norm_is_its_mean_absolute_weight():
    weight = torch.tensor([[[[1.0, -3.0]], [[0.0, 4.0]]], [[[0.0, 0.0]], [[-2.0, 2.0]]]])
    assert kernel_norms(weight).tolist() == [2.0, 1.0]
    assert kernel_norms(torch.tensor([[3.0, -1.0], [0.0, 0.0]])).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("count", [1, 4, 25])
def test_it_lies_between_one_kernel_and_all_alike(count):
    alike, single = torch.full((count,), 0.3), torch.zeros(count)
    single[0] = 7.0
    assert float(pseudo_norm(alike)) == pytest.approx(math.sqrt(count))
    assert float(pseudo_norm(single)) == pytest.approx(1.0)
    random = torch.rand(count, generator=torch.Generator().manual_seed(0)) + 0.01
    assert 1 - 1e-6 <= float(pseudo_norm(random)) <= math.sqrt(count) + 1e-6
    assert float(pseudo_norm(5 * random)) == pytest.approx(float(pseudo_norm(random)))


def test_its_slope_is_that_of_the_formula():
    """d(|n|_1 / |n|_2) / dn_k = 1 / |n|_2 - n_k |n|_1 / |n|_2^3: small kernels shrink, large ones grow."""
    norms = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    pseudo_norm(norms).backward()
    one, two = norms.detach().sum(), norms.detach().norm()
    assert torch.allclose(norms.grad, 1 / two - norms.detach() * one / two**3)
    assert norms.grad[0] > 0 > norms.grad[2]


def test_nothing_left_has_a_slope_that_is_a_number():
    norms = torch.zeros(3, requires_grad=True)
    pseudo_norm(norms).backward()
    assert torch.isfinite(norms.grad).all()


@pytest.mark.parametrize(
    ("norms", "share", "gone"),
    [
        ([50.0, 0.4, 49.0, 0.6], 0.01, [False, True, False, True]),
        ([50.0, 0.5, 48.9, 0.6], 0.01, [False, True, False, False]),
        ([1.0, 1.0, 1.0], 0.01, [False, False, False]),
        ([0.0, 5.0, 0.0], 0.01, [True, False, True]),
        ([3.0, 1.0, 2.0], 0.5, [False, True, True]),
    ],
)
def test_the_smallest_go_while_they_hold_no_more_than_their_share(norms, share, gone):
    assert negligible(torch.tensor(norms, dtype=torch.float64), share).tolist() == gone
