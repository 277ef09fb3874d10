"""Networks without a fixed graph, such as full detectors, are refused in one line that says what to do."""

import pytest
import torch
from torch import nn

from toolchain import cli
from toolchain.errors import UnsupportedError
from toolchain.program.capture import capture, example_inputs, from_exported
from toolchain.program.channels import analyse
from toolchain.program.rewrite import apply, mask

IMAGE = (torch.randn(2, 3, 8, 8),)


class Detector(nn.Module):
    """Backbone and head: for each pixel a box and a score."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1)

    def raw(self, x):
        found = self.head(torch.relu(self.backbone(x))).flatten(2).transpose(1, 2)
        return found[..., :4], found[..., 4]

    def forward(self, x):
        boxes, scores = self.raw(x)
        return boxes[0, nms(boxes[0], scores[0])]


class Raw(Detector):
    def forward(self, x):
        return self.raw(x)


class Thresholded(Detector):
    """Selects without control flow: torch.export captures it, with a size that only the data know."""

    def forward(self, x):
        boxes, scores = self.raw(x)
        return boxes[scores > 0]


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def nms(boxes, scores):
    """Greedy non-maximum suppression by the distance of centres."""
    kept, order = [], scores.argsort(descending=True)
    while order.numel():
        kept.append(order[0])
        order = order[(boxes[order] - boxes[order[0]]).abs().sum(1) > 1]
    return torch.stack(kept)


@pytest.mark.parametrize(
    ("network", "said", "advice"),
    [
        (Detector, r"test_program_refusal\.py:\d+, in nms\): how many boxes non-maximum sup", "raw outputs"),
        (Thresholded, r"the size of what index \(aten\.index\.Tensor\) yields depends on the", "raw outputs"),
        (Branching, r"in forward\): what it computes depends on the values of tensors$", "torch.where"),
    ],
)
def test_what_depends_on_the_data_is_refused(network, said, advice):
    torch.manual_seed(0)
    with pytest.raises(UnsupportedError, match=said) as caught:
        capture(network().eval(), IMAGE, name="net")
    assert "\n" not in caught.value.message
    assert advice in caught.value.hint


def test_an_archive_with_open_sizes_is_refused_too():
    exported = torch.export.export(Thresholded().eval(), IMAGE)
    with pytest.raises(UnsupportedError, match="yields depends on the data"):
        from_exported(exported, name="net")


def test_the_command_says_so_in_two_lines(tmp_path, capsys):
    path = tmp_path / "detector.pt2"
    torch.export.save(torch.export.export(Thresholded().eval(), IMAGE), path)
    assert cli.main(["inspect", str(path)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert "backbone and heads" in lines[1]


def test_backbone_and_head_are_taken_and_boxes_selected_afterwards():
    """What the hint advises works: the raw outputs are exact, and the selection sees what it saw."""
    torch.manual_seed(0)
    network = Raw().double().eval()
    program = capture(network, (IMAGE[0].double(),), name="raw")
    channels = analyse(program)
    assert [group.name for group in channels.groups] == ["backbone"]
    keep = {"backbone": (1, 4, 6)}
    inputs = tuple(x.double() for x in example_inputs(program, 3))
    found, wanted = (
        apply(program, channels, keep).module(*inputs),
        mask(program, channels, keep).module(*inputs),
    )
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    assert nms(found[0][0], found[1][0]).tolist() == nms(wanted[0][0], wanted[1][0]).tolist()
