"""The loss of fine-tuning against its definition and against gradients known in closed form."""

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss, softmax

from toolchain.train.distil import distillation_loss

torch.manual_seed(0)
STUDENT, TEACHER = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
TARGET = torch.tensor([0, 3, 1, 1, 2, 0])


def loss(student=STUDENT, teacher=TEACHER, target=TARGET, *, temperature=4.0, weight=0.9):
    pack = tuple(x if isinstance(x, tuple) or x is None else (x,) for x in (student, teacher))
    return distillation_loss(*pack, target, temperature=temperature, weight=weight)


def test_weight_zero_is_the_task_alone_and_no_teacher_too():
    wanted = cross_entropy(STUDENT, TARGET)
    assert torch.equal(loss(weight=0.0), wanted)
    assert torch.equal(loss(teacher=None), wanted)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_is_that_of_the_softened_distributions(temperature):
    p, q = softmax(TEACHER / temperature, 1), softmax(STUDENT / temperature, 1)
    wanted = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(loss(temperature=temperature, weight=1.0), wanted)
    torch.testing.assert_close(loss(student=TEACHER, weight=1.0), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_gradient_is_the_one_of_hinton(temperature):
    """d/dz of T^2 KL is T (softmax(z/T) - softmax(v/T)): of one size whatever the temperature."""
    student = STUDENT.clone().requires_grad_()
    loss(student=student, temperature=temperature, weight=1.0).backward()
    wanted = temperature * (softmax(STUDENT / temperature, 1) - softmax(TEACHER / temperature, 1)) / 6
    torch.testing.assert_close(student.grad, wanted)


def test_the_two_parts_are_mixed_by_weight():
    parts = loss(weight=0.0), loss(weight=1.0)
    torch.testing.assert_close(loss(weight=0.3), 0.7 * parts[0] + 0.3 * parts[1])


def test_dense_predictions_are_means_over_positions():
    student, teacher = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    target = torch.randint(4, (2, 3, 5))
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 4) for x in (student, teacher)]
    torch.testing.assert_close(loss(student, teacher, target), loss(*flat, target.flatten()))


def test_regression_follows_target_and_teacher_by_squared_error():
    target = torch.randn(6, 4, dtype=torch.float64)
    wanted = 0.1 * mse_loss(STUDENT, target) + 0.9 * mse_loss(STUDENT, TEACHER)
    torch.testing.assert_close(loss(target=target), wanted)


def test_further_outputs_follow_the_teacher_relative_to_their_variance():
    mine, original = torch.randn(6, 8), torch.randn(6, 8)
    first = loss(weight=1.0)
    both = loss(student=(STUDENT, mine), teacher=(TEACHER, original), weight=1.0)
    extra = mse_loss(mine, original) / original.var(correction=0)
    torch.testing.assert_close(both - first, extra.double())
    scaled = loss(student=(STUDENT, 1000 * mine), teacher=(TEACHER, 1000 * original), weight=1.0)
    torch.testing.assert_close(scaled, both, rtol=1e-5, atol=0)


def test_target_of_another_kind_leaves_the_teacher_alone():
    boxes = torch.randn(6, 9)
    torch.testing.assert_close(loss(target=boxes), mse_loss(STUDENT, TEACHER))
    with pytest.raises(ValueError, match="without a teacher"):
        loss(teacher=None, target=boxes)
