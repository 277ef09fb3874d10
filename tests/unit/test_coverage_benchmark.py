"""The coverage benchmark on a small network: it must see what is wrong, not only what is right."""

import torch
from torch import nn

from benchmarks.coverage import oracle, race, shares
from benchmarks.coverage.one import why
from benchmarks.coverage.table import markdown
from tests.networks import Depthwise, randomised
from toolchain.program.capture import capture
from toolchain.program.channels import analyse, examine


def program_of(network, *shape):
    return capture(randomised(network), (torch.randn(2, *shape, dtype=torch.float64),), name="net")


class Held(nn.Module):
    """A convolution whose result is also an output, and one whose channels are put in order by a sort."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Conv2d(8, 5, 1)

    def forward(self, x):
        kept = self.first(x)
        return kept, self.last(self.second(kept).sort(1).values)


def test_every_check_passes_and_compares_networks_that_changed():
    found = oracle.checks(program_of(Depthwise(), *Depthwise.shape))
    assert {name: check["status"] for name, check in found.items()} == dict.fromkeys(oracle.BATCHES, "equal")
    assert {name: check["batch"] for name, check in found.items()} == oracle.BATCHES
    assert all(found[name]["change"] > 1e-3 for name in ("half", "uneven", "twice"))
    assert why(found) == ""


def test_a_wrong_cut_is_seen(monkeypatch):
    program = program_of(Depthwise(), *Depthwise.shape)
    channels, right = analyse(program), oracle.apply
    whole = {g.name: tuple(range(g.size)) for g in channels.groups}

    def wrong(program, channels, keep):
        """Another choice of as many units."""
        turned = {g: tuple(sorted((u + 1) % len(whole[g]) for u in units)) for g, units in keep.items()}
        return right(program, channels, turned)

    monkeypatch.setattr(oracle, "apply", wrong)
    found = oracle.against_mask(program, channels, oracle.half(channels), 3)
    assert found["status"] == "differs"
    assert found["planned_cost_equal"]
    assert "deviation" in why({"half": found})


def test_a_check_that_breaks_is_an_entry_with_its_place():
    found = oracle.attempt(lambda batch: [][batch], 3)
    assert found["status"] == "failed"
    assert found["reason"].startswith("IndexError: list index out of range (oracle.py:")


def test_the_share_tells_outputs_from_frozen_channels():
    program = program_of(Held(), 3, 8, 8)
    found = shares.share(program, examine(program))
    assert (found["prunable"], found["outputs"], found["frozen"]) == (0, 11, 8)
    assert [(m["layer"], m["channels"]) for m in found["missing"]] == [("second.weight", 8)]
    assert "sort" in found["missing"][0]["reason"]


def test_transposed_convolutions_are_counted_by_their_outputs():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 5, 1))
    program = program_of(network, 3, 8, 8)
    found = shares.share(program, examine(program))
    assert (found["prunable"], found["outputs"], found["missing"]) == (14, 5, [])


def test_the_race_measures_ours_without_touching_the_module():
    network = randomised(Depthwise()).float()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = race.ours(network, torch.randn(1, *Depthwise.shape))
    assert found["parameter_bytes"] == sum(4 * p.numel() for p in network.parameters())
    assert min(found["capture_s"], found["analysis_s"], found["pruning_s"]) > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_the_table_names_failures_frozen_channels_and_networks_not_run():
    program = program_of(Held(), 3, 8, 8)
    measured = {**shares.share(program, examine(program)), "unknown_operators": {"aten.sort.default": 1}}
    record = {
        "family": "tests",
        "environment": {"torch": "x"},
        "networks": {
            "held": {"status": "equal", "params": 10, **measured},
            "broken": {"status": "failed", "params": 10, "reason": "no such thing"},
            "waiting": {"status": "not run", "reason": "not yet"},
        },
    }
    text = markdown(record)
    assert "2 of 3 networks run; 1 pass" in text
    assert "- broken: failed: no such thing" in text
    assert "- held: 8 in 1 layers (first second.weight): " in text
    assert "- held: 1 aten.sort.default" in text
    assert "- waiting: not yet" in text
