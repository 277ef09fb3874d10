"""The metric: one value however samples are batched, the user's own functions, and what is refused."""

import numpy as np
import pytest
import torch

from toolchain.errors import InputError
from toolchain.train.data import open_data
from toolchain.train.metric import as_tuple, evaluate, resolve
from toolchain.values import Preprocessing, TensorSpec

TOP1 = resolve("top1")
MODULE = """
import torch
VALUE = 3
def mean_error(outputs, target):
    return (outputs[0].argmax(1) - target).abs().double().mean()
mean_error.higher_is_better, mean_error.unit = False, "classes"
def hits(outputs, target):
    return (outputs[0].argmax(1) == target).float()
def words(outputs, target):
    return "good"
def nothing(outputs, target):
    return float("nan")
"""


def identity(inputs):
    return inputs


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An importable module `mymetric`, found from the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mymetric", raising=False)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (tmp_path / "mymetric.py").write_text(MODULE)
    return "mymetric"


@pytest.fixture
def data(tmp_path):
    """Class scores as inputs: a network that returns its input is right on 7 of the 23 validation samples."""
    scores = np.zeros((23, 5), np.float32)
    labels = np.arange(23) % 5
    scores[np.arange(23), np.where(np.arange(23) < 7, labels, (labels + 1) % 5)] = 1
    np.savez(tmp_path / "scores.npz", x=scores, y=labels, x_val=scores, y_val=labels)
    spec = TensorSpec(name="x", shape=(None, 5))
    return open_data(str(tmp_path / "scores.npz"), preprocessing=Preprocessing(), program_inputs=(spec,))


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_value_does_not_depend_on_the_batch(data, batch_size):
    score = evaluate(identity, data, TOP1, batch_size=batch_size)
    assert score.value == pytest.approx(100 * 7 / 23, abs=1e-9)
    assert (score.name, score.samples, score.unit) == ("top1", 23, "points")


@pytest.mark.parametrize(("limit", "used"), [(1, 1), (6, 6), (1000, 23)])
def test_limit_takes_exactly_so_many_samples(data, limit, used):
    (everything,), labels = next(data.validation(23))
    right = (everything.argmax(1) == labels)[:used].double().mean()
    score = evaluate(identity, data, TOP1, batch_size=4, limit=limit)
    assert score.samples == used
    assert score.value == pytest.approx(100 * float(right))


def test_own_function_may_return_the_mean_or_one_value_a_sample(data, mine):
    hits = resolve(f"{mine}:hits")
    assert evaluate(identity, data, hits, batch_size=5).value == pytest.approx(7 / 23)
    error = resolve(f"{mine}:mean_error")
    assert (error.higher_is_better, error.unit) == (False, "classes")
    assert error.better(1.0, than=2.0)
    assert not error.better(2.0, than=2.0)
    assert hits.better(2.0, than=1.0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("top5", "unknown metric 'top5'"),
        ("nomodule_here:f", "cannot import 'nomodule_here'"),
        ("mymetric:absent", "has no 'absent'"),
        ("mymetric:VALUE", "has a non-callable 'VALUE'"),
    ],
)
def test_unusable_names_are_refused(spec, said, mine):
    with pytest.raises(InputError, match=said) as caught:
        resolve(spec)
    assert caught.value.hint


def test_values_that_are_no_numbers_are_refused(data, mine):
    with pytest.raises(InputError, match="returned str"):
        evaluate(identity, data, resolve(f"{mine}:words"))
    with pytest.raises(InputError, match="not finite"):
        evaluate(identity, data, resolve(f"{mine}:nothing"))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.tensor([0, 7]), "label 7 does not fit the network, which has 3 classes"),
        (torch.tensor([0, -1]), "does not fit"),
        (torch.tensor([0.0, 1.0]), "class numbers"),
        (torch.tensor([[0], [1]]), "class numbers"),
    ],
)
def test_targets_that_do_not_fit_are_refused(target, said):
    with pytest.raises(InputError, match=said):
        TOP1.mean((torch.zeros(2, 3),), target)


def test_outputs_of_any_nesting_become_one_tuple():
    a, b, c = torch.zeros(1), torch.ones(2), torch.ones(3)
    assert as_tuple(a) == (a,)
    assert [len(x) for x in as_tuple({"first": a, "second": [b, (c,)]})] == [1, 2, 3]
