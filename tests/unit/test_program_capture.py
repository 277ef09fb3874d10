"""Capture, the train/eval switch, identity, saving and opening."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.networks import TOPOLOGIES, randomised
from toolchain.errors import InputError, UnsupportedError
from toolchain.program.capture import (
    capture,
    example_inputs,
    fingerprint,
    from_exported,
    open_program,
    save_program,
    switch,
)
from toolchain.program.channels import analyse
from toolchain.program.rewrite import apply

NETWORKS = [n for n in TOPOLOGIES if n != "option A"]


def sample(network, batch=4):
    return torch.randn(batch, *network.shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_bit_identical_to_eager(name):
    torch.manual_seed(0)
    eager = randomised(TOPOLOGIES[name]()).float()
    x, target = sample(eager), torch.arange(4) % 3
    program = capture(copy.deepcopy(eager), (x,), name=name)
    graph = switch(program, training=True)
    results = []
    for network in (eager.train(), graph):
        torch.manual_seed(5)
        loss = F.cross_entropy(network(x), target)
        loss.backward()
        results.append((loss, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1]
    assert set(results[0][1]) == set(results[1][1])
    assert all(torch.equal(g, results[1][1][n]) for n, g in results[0][1].items())
    buffers = dict(graph.named_buffers())
    for n, value in eager.named_buffers():
        if "num_batches" not in n:
            assert torch.equal(value, buffers[n]), n


class Odd(nn.Module):
    """Normalisations and dropouts whose mode argument sits in different places."""

    def __init__(self):
        super().__init__()
        self.conv, self.free = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)
        self.bn, self.inst = nn.BatchNorm2d(6, eps=1e-3, momentum=0.3), nn.InstanceNorm2d(6, affine=True)
        self.parts = nn.ModuleList(
            [nn.Dropout2d(0.2), nn.AlphaDropout(0.1), nn.RReLU(), nn.FeatureAlphaDropout(0.2)]
        )

    def forward(self, x):
        x = self.inst(self.bn(self.free(self.conv(x))))
        for part in self.parts:
            x = part(x)
        return x.mean((2, 3))


def test_every_kind_of_mode_argument_is_switched_and_switched_back():
    eager = Odd()
    x = torch.randn(4, 3, 8, 8)
    program = capture(copy.deepcopy(eager), (x,), name="odd")
    graph = switch(program, training=True)
    outputs = []
    for network in (eager.train(), graph):
        torch.manual_seed(3)
        outputs.append(network(x))
    assert torch.equal(*outputs)
    assert torch.equal(eager.bn.running_var, graph.get_buffer("bn.running_var"))
    back = switch(program, training=False)
    torch.testing.assert_close(back(x), capture(copy.deepcopy(program.module), (x,), name="again").module(x))
    assert torch.equal(back(x), program.module(x))


def test_capture_leaves_the_module_alone_and_shares_its_weights():
    network = TOPOLOGIES["chain"]().train()
    network.bn1.eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    program = capture(network, (sample(network, 1),), name="chain", input_names=["image"])
    assert network.training
    assert network.bn2.training
    assert not network.bn1.training
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())
    assert program.module.get_parameter("conv1.weight") is network.conv1.weight
    assert program.inputs[0].name == "image"
    assert program.inputs[0].shape == (None, 3, 8, 8)
    assert program.outputs[0].shape == (None, 5)


class Exact(nn.Module):
    """Part of the network is computed without autocast, as EfficientViT does."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        x = self.first(x)
        with torch.autocast("cpu", enabled=False):
            x = torch.relu(x.float()) / 2
        return self.last(x).mean((2, 3))


def test_regions_without_autocast_are_written_in_line():
    network, x = Exact().eval(), torch.randn(2, 3, 8, 8)
    program = capture(network, (x,), name="exact")
    assert all(node.op != "call_module" and "wrap" not in node.name for node in program.module.graph.nodes)
    assert "relu" in program.module.code
    assert [g.name for g in analyse(program).groups] == ["first"]
    with torch.no_grad():
        assert torch.equal(program.module(x), network(x))


def test_saved_and_opened_is_the_same_program(tmp_path):
    network = randomised(TOPOLOGIES["attention"]()).float()
    program = capture(network, (sample(network),), name="block")
    save_program(program, tmp_path / "block.pt2")
    opened = open_program(tmp_path / "block.pt2")
    x = example_inputs(program, 3)
    assert torch.equal(program.module(*x), opened.module(*x))
    assert (opened.name, opened.inputs, opened.outputs) == (program.name, program.inputs, program.outputs)
    assert fingerprint(opened) == fingerprint(program)
    assert [p.name for p in tmp_path.iterdir()] == ["block.pt2"]


def test_fingerprint_follows_weights_and_graph():
    network = TOPOLOGIES["chain"]().eval()
    x = (sample(network),)
    first = fingerprint(capture(network, x, name="a"))
    assert fingerprint(capture(copy.deepcopy(network), x, name="b")) == first
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] += 1e-3
    assert fingerprint(capture(network, x, name="a")) != first


def test_a_batch_fixed_at_export_becomes_dynamic():
    network = TOPOLOGIES["residual"]().eval()
    x = sample(network, 1)
    exported = torch.export.export(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval(), (x,)
    )
    program = from_exported(exported, name="fixed")
    assert program.inputs[0].shape[0] is None
    assert program.module(torch.randn(5, 3, 8, 8)).shape == (5, 2)


class Squeezed(nn.Module):
    """Pooled, then without the dimensions of one element."""

    def __init__(self, squeeze):
        super().__init__()
        self.conv, self.head, self.squeeze = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), squeeze

    def forward(self, x):
        return self.head(self.squeeze(self.conv(x).mean((2, 3), keepdim=True)))


SQUEEZES = {
    "all": lambda x: x.squeeze(),
    "all, in place": lambda x: x.squeeze_(),
    "by number": lambda x: x.squeeze(-1).squeeze(2),
    "several": lambda x: x.squeeze((2, 3)),
    "the batch too": lambda x: x.squeeze((0, -2, -1)),
    "nothing but by chance": lambda x: x.squeeze(0).squeeze(1).flatten(1),
}


@pytest.mark.parametrize("name", SQUEEZES)
def test_a_batch_of_one_and_a_width_of_one_stay_dimensions(name):
    network = Squeezed(SQUEEZES[name]).eval()
    program = capture(network, (torch.randn(1, 3, 8, 8),), name="squeezed")
    assert program.outputs[0].shape == (None, 2)
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        wanted = network(x)
        torch.testing.assert_close(program.module(x), wanted, rtol=0, atol=0)
        torch.testing.assert_close(program.module(x[:1]), wanted[:1])
        (group,) = analyse(program).groups
        narrow = apply(program, analyse(program), {group.name: (2,)})
        assert narrow.module(x[:1]).shape == (1, 2)


def test_a_batch_of_one_that_was_squeezed_at_export_comes_back():
    network = Squeezed(SQUEEZES["all"]).eval()
    exported = torch.export.export(network, (torch.randn(1, 3, 8, 8),))
    program, x = from_exported(exported, name="squeezed"), torch.randn(3, 3, 8, 8)
    assert [s.shape for s in (*program.inputs, *program.outputs)] == [(None, 3, 8, 8), (None, 2)]
    with torch.no_grad():
        torch.testing.assert_close(program.module(x), network(x))
        torch.testing.assert_close(program.module(x[:1])[0], network(x[:1]))


class Fixed(nn.Module):
    def forward(self, x):
        return x.view(2, 3) * 2


def test_a_batch_that_cannot_be_dynamic_is_kept():
    program = capture(Fixed(), (torch.randn(2, 3),), name="fixed")
    assert program.inputs[0].shape == (2, 3)
    assert [x.shape for x in example_inputs(program, 7)] == [(2, 3)]


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


def test_data_dependent_control_flow_is_refused_with_its_line():
    with pytest.raises(UnsupportedError, match=r"test_program_capture\.py:\d+, in forward") as caught:
        capture(Branching(), (torch.randn(2, 3),), name="branching")
    assert "\n" not in caught.value.message
    assert caught.value.hint


class Several(nn.Module):
    def forward(self, image, tokens):
        table = torch.arange(10.0)[tokens]
        return {"sum": image.sum((1, 2, 3)) + table, "none": None, "both": (image, table)}


def test_several_inputs_and_nested_outputs_are_flattened():
    program = capture(Several(), (torch.randn(2, 3, 4, 4), torch.tensor([1, 2])), name="several")
    assert [s.dtype for s in program.inputs] == ["float32", "int64"]
    assert [s.name for s in program.outputs] == ["sum", "both_0", "both_1"]
    inputs = example_inputs(program, 6)
    assert [tuple(o.shape) for o in program.module(*inputs)] == [(6,), (6, 3, 4, 4), (6,)]


def test_open_names_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        open_program(tmp_path / "missing.pt2")
    (tmp_path / "broken.pt2").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(InputError, match="not a readable"):
        open_program(tmp_path / "broken.pt2")
