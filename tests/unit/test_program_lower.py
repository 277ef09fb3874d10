"""What is exported: batch norms merged, dropout gone, the same function, and the program left as it was."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from toolchain import registry
from toolchain.program.capture import capture, example_inputs, fingerprint, switch
from toolchain.program.lower import lower
from toolchain.verify.parity import check_float

IMAGE = (3, 6, 8, 8)


def randomised(module: nn.Module) -> nn.Module:
    """In float64, with batch norms that do something."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            if layer.track_running_stats:
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2.0)
            if layer.affine:
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    return module.double().eval()


def lowered(module: nn.Module, shape=IMAGE):
    """Operator names after lowering; the outputs are compared and the program's fingerprint too."""
    x = torch.randn(*shape, dtype=torch.float64)
    program = capture(randomised(module), (x,), name="net")
    before = fingerprint(program)
    result = lower(program)
    torch.testing.assert_close(result.module(x), program.module(x), rtol=1e-12, atol=1e-12)
    assert fingerprint(program) == before
    return [str(n.target) for n in result.module.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ((nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)), IMAGE),
        ((nn.Conv2d(6, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8, affine=False)), IMAGE),
        ((nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4)), (3, 6, 8)),
        ((nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4)), (3, 2, 4, 8, 8)),
        ((nn.ConvTranspose2d(6, 4, 3), nn.BatchNorm2d(4)), IMAGE),
        ((nn.ConvTranspose2d(6, 9, 3, groups=3, bias=False), nn.BatchNorm2d(9)), IMAGE),
        ((nn.Linear(6, 4), nn.BatchNorm1d(4)), (3, 6)),
    ],
)
def test_a_norm_goes_into_the_layer_before_it(layers, shape):
    operators = lowered(nn.Sequential(*layers, nn.ReLU()), shape)
    assert len(operators) == 2
    assert not any("batch_norm" in name for name in operators)


class Twice(nn.Module):
    """The convolution is read beside its norm too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Twice(), IMAGE),
        (nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)), IMAGE),
        (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(6)), (3, 6, 5)),
        (nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)), IMAGE),
    ],
    ids=["read twice", "norm first", "norm over another dimension", "statistics of the batch"],
)
def test_other_norms_stay(module, shape):
    assert any("batch_norm" in name for name in lowered(module, shape))


def test_a_shared_convolution_gets_the_norm_of_each_place():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.first, self.second = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.BatchNorm2d(6)

        def forward(self, x):
            return self.second(self.conv(self.first(self.conv(x))))

    assert len(lowered(Shared())) == 2


@pytest.mark.parametrize("dropout", [nn.Dropout(), nn.Dropout2d(inplace=True), nn.AlphaDropout()])
def test_dropout_that_does_nothing_is_gone(dropout):
    operators = lowered(nn.Sequential(nn.Conv2d(6, 4, 1), dropout, nn.ReLU()))
    assert len(operators) == 2


def test_training_mode_is_left_alone():
    net = nn.Sequential(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    program = capture(randomised(net), (torch.randn(*IMAGE, dtype=torch.float64),), name="net")
    training = replace(program, module=switch(program, training=True))
    assert lower(training) is training


def test_untouched_tensors_are_shared():
    net = nn.Sequential(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    program = capture(net.eval(), (torch.randn(*IMAGE),), name="net")
    assert lower(program).module.get_parameter("2.weight") is program.module.get_parameter("2.weight")


def test_what_was_merged_is_not_carried_along():
    net = nn.Sequential(nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4))
    program = capture(net.eval(), (torch.randn(*IMAGE),), name="net")
    assert sum(t.numel() for t in lower(program).module.state_dict().values()) == 6 * 4 + 4


class Computed(nn.Module):
    """A weight and a bias computed from parameters, the bias written in place as Swin v2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 6, 1, 1)), nn.Parameter(torch.randn(4))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        bias = self.bias.clone()
        bias[1:3].zero_()
        weight = self.weight / self.weight.std(dim=(1, 2, 3), keepdim=True)
        return self.norm(nn.functional.conv2d(x, weight, bias))


def test_what_depends_on_parameters_alone_is_computed():
    assert lowered(Computed()) == ["aten.conv2d.default"]


class Tied(nn.Module):
    """A table that is read and, transposed, multiplied with."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, 6))

    def forward(self, x):
        return nn.functional.linear(x, self.table) @ (self.table * 2)


@pytest.mark.parametrize(("rows", "stored"), [(10, 120), (11, 66)])
def test_a_large_table_is_not_stored_twice(rows, stored, monkeypatch):
    monkeypatch.setattr("toolchain.program.fold.LARGEST_COPY", 60)
    program = capture(Tied(rows).eval(), (torch.randn(3, 6),), name="tied")
    assert sum(t.numel() for t in lower(program).module.state_dict().values()) == stored
    lowered(Tied(rows), (3, 6))


class Normalised(nn.Module):
    """Features of length one, scaled, between two convolutions: the first scale of SSD."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 8, 3), nn.Conv2d(8, 4, 3)
        self.scale = nn.Parameter(torch.rand(8))

    def forward(self, x):
        features = nn.functional.normalize(self.first(x))
        return self.second(self.scale.view(1, -1, 1, 1).expand_as(features) * features)


def test_an_expansion_before_an_operator_that_broadcasts_goes():
    assert not any("expand" in name for name in lowered(Normalised()))


class Grown(nn.Module):
    """The expansion gives the sum its shape: it has to stay."""

    def forward(self, x):
        column = x[..., :1]
        return column.expand_as(x) + x.mean() + column.expand(-1, -1, -1, 8) * column


def test_an_expansion_that_makes_the_shape_stays():
    assert sum("expand" in name for name in lowered(Grown())) == 2


def test_features_of_length_one_convert_to_tflite(tmp_path):
    program = capture(randomised(Normalised()).float(), (torch.randn(*IMAGE),), name="net")
    form = registry.find("toolchain.export", "FORMAT", "tflite")
    artifact = form.write(lower(program), tmp_path / "net.tflite", {})
    inputs = tuple(x.numpy() for x in example_inputs(program, 2, seed=1))
    assert check_float(program, form.open(artifact.path), inputs, subject="net").status == "pass"
