"""The text of `inspect`: short lines, and groups over which operators compute are said."""

import torch
from torch import nn

from toolchain.contracts import Tier
from toolchain.latency.tiers import timing
from toolchain.listings import LINE, bench_text, inspection_text
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


def benched(windows, before=None, after=None):
    """A record of `edgefit bench` with one file, of `windows` parts of one session."""
    walls = [(1_000_000 + 10_000 * w,) * 5 for w in range(windows)]
    records = [
        {"trial": 0, "window": w, "runs": 5, "min_ns": min(wall), "wall_ns": wall, "celsius": 40.0 + w}
        for w, wall in enumerate(walls)
    ]
    tier = Tier(name="t", runs=1, seconds=0, trials=1, windows=windows)
    model = {
        "file": "a.onnx",
        "runtime": "onnxruntime",
        "runtime_version": "1.0",
        "precision": None,
        "instructions": None,
        "placement": None,
        "timing": to_plain(timing(records, tier)),
    }
    settings = {"tier": to_plain(tier), "threads": 1}
    return {
        **{"device": "host", "driver": "runner", "settings": settings, "models": [model]},
        **{"before": before or {}, "after": after},
    }


def test_a_long_session_is_shown_part_by_part():
    text = bench_text(benched(10))
    lines = [line.split() for line in text.splitlines()]
    assert ["1", "1.000", "ms", "1.000", "ms", "40", "-"] in lines
    assert ["10", "1.090", "ms", "1.090", "ms", "49", "-"] in lines
    assert "warning: a.onnx: throttled: 8 % slower at the end than at the beginning" in text
    assert "part" not in bench_text(benched(1))


def test_a_device_that_became_hot_is_told():
    for before, after, told in ((0.0, 2.0, True), (1.0, 1.0, False), (None, 2.0, False), (2.0, None, False)):
        text = bench_text(benched(1, {"thermal_status": before}, {"thermal_status": after}))
        assert ("it became hot: thermal status 0 before, 2 after" in text) is told
    assert "hot" not in bench_text(benched(1))
