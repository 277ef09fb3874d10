"""What several unit tests learn from."""

import pytest

from tests.colours import colours
from toolchain.train.data import open_data
from toolchain.values import Preprocessing


@pytest.fixture
def data(tmp_path, program):
    """300 images in colours, for a module's own `program` of images 8 x 8."""
    path = colours(tmp_path / "d.npz", 300)
    return open_data(str(path), preprocessing=Preprocessing(), program_inputs=program.inputs)
