"""What the end-to-end tests share."""

import pytest

from benchmarks.digits.network import prepare


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A trained CNN and its data: (digits.pt2, digits.npz)."""
    model, data, accuracy = prepare(tmp_path_factory.mktemp("digits"), epochs=2)
    assert accuracy > 80
    return model, data
