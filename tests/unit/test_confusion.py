"""Metrics of the confusion matrix against their closed forms, whatever the batches."""

import numpy as np
import pytest
import torch

from toolchain.errors import InputError
from toolchain.train.confusion import SUMMARIES, confusion, kappa, mean_iou, mean_precision, mean_recall
from toolchain.train.data import open_data
from toolchain.train.metric import evaluate, resolve
from toolchain.values import Preprocessing, TensorSpec

TARGET = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
CALLED = torch.tensor([0, 0, 0, 0, 1, 2, 1, 0, 2, 2])
MATRIX = [[4, 1, 1], [1, 1, 0], [0, 0, 2]]


def test_rows_are_what_is_and_columns_what_it_was_called():
    assert confusion(CALLED, TARGET, 3).tolist() == MATRIX


def test_the_figures_are_those_done_by_hand():
    matrix = confusion(CALLED, TARGET, 3)
    assert mean_recall(matrix) == pytest.approx(100 * (4 / 6 + 1 / 2 + 2 / 2) / 3)
    assert mean_precision(matrix) == pytest.approx(100 * (4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert mean_iou(matrix) == pytest.approx(100 * (4 / 7 + 1 / 3 + 2 / 3) / 3)
    chance = (5 * 6 + 2 * 2 + 3 * 2) / 100
    assert kappa(matrix) == pytest.approx(100 * (0.7 - chance) / (1 - chance))


def test_perfect_by_chance_and_worse():
    assert kappa(torch.eye(4).double()) == pytest.approx(100)
    assert kappa(torch.ones(3, 3).double()) == pytest.approx(0)
    assert kappa(torch.tensor([[0.0, 5.0], [5.0, 0.0]]).double()) == pytest.approx(-100)
    assert kappa(torch.tensor([[5.0, 0.0], [0.0, 0.0]]).double()) == 0


def test_a_class_without_samples_has_no_recall():
    matrix = confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 4)
    assert mean_recall(matrix) == pytest.approx(75)
    assert mean_precision(matrix) == pytest.approx(75)
    assert mean_iou(matrix) == pytest.approx(50)


@pytest.fixture
def data(tmp_path):
    """Class scores as inputs: a network that returns its input calls them as above."""
    scores = torch.nn.functional.one_hot(CALLED, 3).float().numpy()
    np.savez(tmp_path / "s.npz", x=scores, y=TARGET.numpy(), x_val=scores, y_val=TARGET.numpy())
    spec = TensorSpec(name="x", shape=(None, 3))
    return open_data(str(tmp_path / "s.npz"), preprocessing=Preprocessing(), program_inputs=(spec,))


@pytest.mark.parametrize("name", SUMMARIES)
@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_they_are_of_all_samples_not_means_of_batches(data, name, batch_size):
    score = evaluate(lambda inputs: inputs, data, resolve(name), batch_size=batch_size)
    assert score.value == pytest.approx(SUMMARIES[name](torch.tensor(MATRIX).double()))
    assert (score.name, score.samples, score.unit) == (name, 10, "points")


def test_what_is_no_classification_is_refused():
    with pytest.raises(InputError, match="kappa needs class numbers"):
        resolve("kappa").mean((torch.zeros(4, 3),), torch.zeros(4, 3))
