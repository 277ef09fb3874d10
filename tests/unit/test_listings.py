"""The text of `inspect`: short lines, and groups over which operators compute are said."""

import torch
from torch import nn

from toolchain.listings import LINE, inspection_text
from toolchain.plain import to_plain
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import cost


class Normed(nn.Module):
    """A trunk that five layer norms compute over."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.inner = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(5))

    def forward(self, x):
        x = self.stem(x)
        for norm, inner in zip(self.norms, self.inner, strict=True):
            x = x + inner(norm(x))
        return self.head(x)


def listed(network, shape):
    program = capture(network.eval(), (torch.randn(2, *shape),), name="net")
    channels = analyse(program)
    found = {
        "name": "net",
        "fingerprint": "0" * 64,
        "inputs": to_plain(program.inputs),
        "outputs": to_plain(program.outputs),
        "cost": to_plain(cost(program)),
        "groups": to_plain(channels.groups),
        "blocks": [],
        "frozen": to_plain(channels.frozen),
        "unknown": {},
        "picture": None,
    }
    return channels, inspection_text(found).splitlines()


def test_norms_over_a_group_are_said_once_and_counted():
    channels, lines = listed(Normed(), (4,))
    trunk = channels.group("stem")
    assert trunk.note == (
        "statistics of the kept channels in layer_norm, layer_norm_1, layer_norm_2 and 2 more"
    )
    assert any(line.startswith("stem *") for line in lines)
    at = lines.index("* operators compute over these groups: after a cut, over the channels that stay")
    assert lines[at + 2].split("  ")[0] == "stem"
    assert lines[at + 2].endswith(trunk.note)


def test_without_such_groups_nothing_is_said_of_them():
    _, lines = listed(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (4,))
    assert not any("*" in line for line in lines)
    row = next(line for line in lines if line.startswith("0 "))
    assert row.split("  ")[-1].strip() == "0.weight[0], 0.bias[0], 2.weight[1]"


def test_long_names_leave_members_to_the_count():
    network = nn.Sequential()
    network.add_module("a_rather_long_name_of_a_module_in_a_network", nn.Linear(4, 8))
    network.add_module("b", nn.Linear(8, 2))
    _, lines = listed(network, (4,))
    row = next(line for line in lines if line.startswith("a_rather_long") and "and" in line)
    members = row.split("  ")[-1].strip()
    assert members == "a_rather_long_name_of_a_module_in_a_network.weight[0] and 2 more"
    assert len(members) < LINE
