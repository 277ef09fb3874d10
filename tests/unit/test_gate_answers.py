"""A network that is handed a part of its input answers beside one that is handed all of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.assembly import format_named
from toolchain.errors import InputError
from toolchain.gate.answers import agreeing, answering
from toolchain.input_view import VIEWED, InputView
from toolchain.plain import to_plain
from toolchain.program.capture import capture
from toolchain.program.entrance import narrowed
from toolchain.train.metric import resolve
from toolchain.values import Preprocessing

VIEW = InputView(shape=(1, 4, 3), flat=True, kept=(0, 2, 5, 7, 11))
IMAGES = InputView(shape=(3, 8, 8), kept=(0, 2), crop=(2, 1, 4, 6))


def network(view):
    torch.manual_seed(0)
    if view.flat:
        made = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        gone = [n for n in range(12) if n not in view.kept]
        with torch.no_grad():
            made[1].weight[:, gone] = 0
        return made

    class Within(nn.Module):
        """Looks at the rectangle alone where it is handed all."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x):
            return self.layer(x).sum((2, 3))

    made = Within()
    with torch.no_grad():
        made.layer.weight[:, 1] = 0
    return made


@pytest.fixture(params=[VIEW, IMAGES], ids=["features", "crop"])
def files(request, tmp_path):
    """(whole file, narrowed file, data): the data are zero in all that the narrowed one does not see."""
    view = request.param
    random = np.random.default_rng(0)
    x = random.normal(size=(60, *view.shape)).astype(np.float32)
    if view.crop is not None:
        top, left, height, width = view.crop
        inside = np.zeros_like(x)
        inside[:, :, top : top + height, left : left + width] = 1
        x *= inside
    program = capture(network(view), (torch.from_numpy(x[:2]),), name="net")
    y = program.module(torch.from_numpy(x)).argmax(1).numpy()
    y[::4] = (y[::4] + 1) % 3
    np.savez(tmp_path / "data.npz", x=x, y=y, x_val=x, y_val=y)
    write = format_named("onnx").write
    told = {VIEWED: json.dumps({**to_plain(view), "text": "some of it"})}
    whole = write(program, tmp_path / "whole.onnx", {})
    small = write(narrowed(program, view), tmp_path / "small.onnx", told)
    return whole, small, str(tmp_path / "data.npz")


def test_each_is_handed_what_it_was_made_for(files):
    *pair, data = files
    whole, small = answering(pair, data, Preprocessing())
    assert small.session.specs[0].shape != whole.session.specs[0].shape
    assert agreeing(small, whole) == (100.0, 60)
    scores = [side.score(resolve("top1")) for side in (whole, small)]
    assert scores == pytest.approx([75.0, 75.0])


def test_files_made_for_the_same_samples_share_them(files):
    whole, small, data = files
    first, again, other = answering([whole, whole, small], data, Preprocessing())
    assert first.data is again.data
    assert other.data.data is first.data
    assert agreeing(first, again) == (100.0, 60)


def test_without_data_inputs_of_different_shapes_are_refused(files):
    sides = answering(files[:2], None, Preprocessing())
    with pytest.raises(InputError, match="inputs of different shapes"):
        agreeing(*sides)


def test_an_unreadable_entry_is_named(files, tmp_path):
    import onnx

    model = onnx.load(str(files[1].path))
    model.metadata_props[0].value = "{}"
    onnx.save(model, str(tmp_path / "odd.onnx"))
    with pytest.raises(InputError, match=r"odd.onnx: what it says of its input \(edgefit.input\)"):
        answering([replace(files[1], path=tmp_path / "odd.onnx")], files[2], Preprocessing())
