"""What coremltools makes of PyTorch's operators, interpreted: the same numbers, or a refusal by name."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

pytest.importorskip("coremltools")

from toolchain.export import coreml
from toolchain.program.capture import capture
from toolchain.program.lower import lower
from toolchain.verify.coreml import check_coreml
from toolchain.verify.mil.execution import interpreter


class Images(nn.Module):
    """Convolutions and their like, with options that ask for several operators of Core ML."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=(1, 0), dilation=(1, 2))
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.norms = nn.Sequential(nn.GroupNorm(2, 6), nn.PReLU(6), nn.InstanceNorm2d(6, affine=True))
        self.same = nn.Conv2d(6, 6, 3, padding="same", groups=6)

    def forward(self, x):
        x = self.norms(self.up(F.hardswish(self.first(x))))
        pooled = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True) - F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        large = F.interpolate(pooled, scale_factor=2, mode="nearest")
        larger = F.interpolate(pooled, size=(13, 11), mode="bilinear", align_corners=False)
        shuffled = F.pixel_shuffle(self.same(x)[:, :4], 2)
        padded = F.pad(x, (1, 2, 2, 1), mode="reflect")
        return large, larger, shuffled, F.adaptive_avg_pool2d(padded, (1, 1)), F.softplus(x).amax((2, 3))


class Tokens(nn.Module):
    """Numbers of words in, attention over them, a class and its scores out."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(40, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens):
        x = self.words(tokens)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        scores = self.head(F.gelu(x[:, 0]))
        return scores, scores.argmax(1)


class Whole(nn.Module):
    def forward(self, x):
        return x.flatten(1).argmax(1)


class Enlarged(nn.Module):
    """Seven pixels to ten, by the nearest neighbour: Core ML's documentation does not say which."""

    def forward(self, x):
        return F.interpolate(x, size=(10, 10), mode="nearest")


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def tokens():
    return torch.randint(0, 40, (3, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["images", "tokens"])
def converted(request, tmp_path_factory):
    """(program, inputs, folder)."""
    torch.manual_seed(0)
    module, example = {"images": (Images(), images(3, 3, 13, 12)), "tokens": (Tokens(), tokens())}[
        request.param
    ]
    for part in module.modules():
        if isinstance(part, nn.GroupNorm | nn.InstanceNorm2d | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    program = capture(module.eval(), (example,), name=request.param)
    return program, (example.numpy(),), tmp_path_factory.mktemp(request.param)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_network_computes_the_same(converted, precision):
    program, inputs, folder = converted
    file = coreml.write(lower(program), folder / f"{precision}.mlpackage", {}, precision=precision)
    checks = check_coreml(file, program, inputs, subject="file")
    assert [c.status for c in checks] == ["pass", "pass", "pass", "not run"], checks
    assert checks[2].name == ("float parity" if precision == "fp32" else "fp16 signal to noise")


def written(module, example, folder):
    program = capture(module, (example,), name="one")
    return coreml.write(lower(program), folder / "one.mlpackage", {}), program


def test_what_has_two_readings_is_refused_by_name(tmp_path):
    example = images(2, 3, 7, 7)
    file, program = written(Enlarged(), example, tmp_path)
    checks = check_coreml(file, program, (example.numpy(),), subject="file")
    assert "fail" not in [c.status for c in checks]
    assert checks[-1].status == "not run"
    assert checks[-1].detail.startswith("not interpreted (operator 'upsample_nearest_neighbor' (")
    assert "7 pixels enlarged to 10" in checks[-1].detail


def test_class_numbers_alone_are_not_judged_by_their_distance(tmp_path):
    example = images(2, 3, 4, 4)
    file, program = written(Whole(), example, tmp_path)
    check = check_coreml(file, program, (example.numpy(),), subject="file")[2]
    assert (check.status, check.value) == ("not run", None)
    assert "no output of floats" in check.detail
    assert np.issubdtype(program.module(example).numpy().dtype, np.integer)


def test_a_file_of_another_network_is_not_compared_number_by_number(converted, tmp_path):
    program, inputs, _ = converted
    file, _ = written(Whole(), images(2, 3, 4, 4), tmp_path)
    checks = check_coreml(file, program, inputs, subject="file")
    assert checks[0].status == "fail"
    assert [c.name for c in checks] == ["Core ML structure", "Core ML weights", "Core ML execution"]
    assert checks[-1].detail == "structure and weights only; not run on Apple hardware"


class Elsewhere:
    """A session that is not the interpreter, as Core ML's own on macOS."""

    def __init__(self, path):
        self.opened = interpreter(path)
        self.inputs, self.outputs, self.specs = self.opened.inputs, self.opened.outputs, self.opened.specs

    def run(self, arrays):
        return self.opened.run(arrays)


def test_a_file_that_was_run_is_not_called_interpreted(converted):
    program, inputs, folder = converted
    file = coreml.write(lower(program), folder / "run.mlpackage", {})
    checks = check_coreml(file, program, inputs, subject="file", session=Elsewhere(file.path))
    assert [c.status for c in checks] == ["pass", "pass", "pass"]
    assert "interpreted" not in checks[2].detail
    assert "run in Core ML on this machine" in checks[2].detail
