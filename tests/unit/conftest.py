"""What several unit tests learn from."""

import numpy as np
import pytest

from toolchain.train.data import open_data
from toolchain.values import Preprocessing


@pytest.fixture
def data(tmp_path, program):
    """Noise of which one channel is brighter: the class. For a module's own `program` of images 8 x 8."""
    random = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = random.integers(0, 120, (300, 3, 8, 8))
    x[np.arange(300), y] += 100
    np.savez(tmp_path / "d.npz", x=x.astype(np.uint8), y=y)
    return open_data(str(tmp_path / "d.npz"), preprocessing=Preprocessing(), program_inputs=program.inputs)
