"""Dropping residual blocks and lowering option-A shortcuts: equal to the masked original, exactly."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import pad, relu

from toolchain.errors import InputError
from toolchain.program.blocks import blocks, drop
from toolchain.program.lower import lower
from toolchain.values import Program


class Basic(nn.Module):
    def __init__(self, before, after, stride, *, inplace):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.extra, self.stride, self.inplace = after - before, stride, inplace

    def forward(self, x):
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        if self.inplace:
            y += x
            return relu(y, inplace=True)
        return relu(x + y)


class Net(nn.Module):
    def __init__(self, *, inplace):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.one = Basic(8, 8, 1, inplace=inplace)
        self.two = Basic(8, 16, 2, inplace=inplace)
        self.three = Basic(16, 16, 1, inplace=inplace)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.three(self.two(self.one(self.stem(x)))).mean((2, 3)))


def program(model):
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1, 0.3)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
    exported = torch.export.export(
        model.double().eval(),
        (torch.randn(4, 3, 8, 8, dtype=torch.float64),),
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
    )
    return Program(name="net", module=exported.module(check_guards=False), inputs=(), outputs=())


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("names", [("one",), ("two",), ("one", "three"), ("one", "two", "three")])
def test_dropping_equals_zeroing_the_branch(inplace, names):
    torch.manual_seed(0)
    original = program(Net(inplace=inplace))
    before = copy.deepcopy(original.module.state_dict())
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    masked = copy.deepcopy(original.module)
    for name in names:
        masked.get_parameter(f"{name}.bn2.weight").data.zero_()
        masked.get_parameter(f"{name}.bn2.bias").data.zero_()
    small = drop(original, names)
    torch.testing.assert_close(small.module(x), masked(x), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(before[k], v) for k, v in original.module.state_dict().items())
    gone = {n for n, _ in original.module.named_parameters()} - {
        n for n, _ in small.module.named_parameters()
    }
    assert {n.split(".")[0] for n in gone} == set(names)
    torch.export.export(small.module, (x,))


def test_blocks_are_named_by_their_modules_and_unknown_ones_refused():
    original = program(Net(inplace=False))
    assert [b.name for b in blocks(original)] == ["one", "two", "three"]
    with pytest.raises(InputError, match="no removable block 'four'"):
        drop(original, ["four"])
    assert drop(original, []) is original


def test_a_plain_chain_has_no_block():
    assert blocks(program(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))) == ()


def test_a_trunk_written_in_place_is_not_shared():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.a(x)
            y = x + self.b(x)
            return y.mul_(2) + x

    original = program(Written())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    masked = copy.deepcopy(original.module)
    masked.get_parameter("b.weight").data.zero_()
    masked.get_parameter("b.bias").data.zero_()
    block = next(b for b in blocks(original) if b.name.startswith("b"))
    torch.testing.assert_close(drop(original, [block.name]).module(x), masked(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inplace", [False, True])
def test_lowering_replaces_pads_and_slices(inplace):
    original = program(Net(inplace=inplace))
    lowered = lower(original)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(lowered.module(x), original.module(x), rtol=1e-12, atol=1e-12)
    targets = {str(n.target) for n in lowered.module.graph.nodes}
    assert not any("pad" in t or "slice" in t for t in targets)
    assert any("pad" in str(n.target) for n in original.module.graph.nodes)


def test_lowering_leaves_other_pads_alone():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return pad(pad(self.a(x), (1, 1, 0, 0)), (0, 0, 0, 0, 1, 1), value=2.0)

    original = program(Padded())
    assert lower(original) is original
