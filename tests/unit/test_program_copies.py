"""A program is analysed once and copied before it is cut: neither is ever stale, nor seen from outside."""

import copy
import inspect
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks import TOPOLOGIES, randomised
from tests.oracle import LIMIT, deviation, drawn, pruned, results
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse, examine
from toolchain.program.index import Index
from toolchain.program.rewrite import apply, mask
from toolchain.program.switching import switch


@pytest.fixture(params=["residual", "channel shuffle", "shared weights", "normalisations"])
def program(request):
    return captured(TOPOLOGIES[request.param]())


def captured(network):
    network = randomised(network)
    example = torch.randn(2, *network.shape, dtype=torch.float64)
    return capture(network, (example,), name="n")


def state(program):
    """All that `apply` could damage: operators, arguments, shapes, parameters and buffers bit by bit."""
    nodes = [(n.name, n.op, str(n.target), str(n.args), str(n.kwargs)) for n in program.module.graph.nodes]
    shapes = [str(getattr(n.meta.get("val"), "shape", None)) for n in program.module.graph.nodes]
    tensors = {n: t.numpy(force=True).tobytes() for n, t in program.module.state_dict().items()}
    return nodes, shapes, tensors, program.module.code


def halved(program):
    channels = analyse(program)
    return channels, drawn(channels, random.Random(0), 0.5)


@pytest.mark.parametrize("step", [apply, mask])
def test_the_program_handed_in_is_untouched_and_shares_no_memory(program, step):
    before = state(program)
    small = step(program, *halved(program))
    with torch.no_grad():
        for tensor in small.module.state_dict().values():
            tensor.zero_()
    for node in small.module.graph.nodes:
        node.meta.clear()
    small.module.graph.erase_node(next(n for n in small.module.graph.nodes if n.op == "output"))
    assert state(program) == before


def test_the_analysis_is_made_once_and_not_kept_longer_than_the_program(program):
    assert examine(program) is examine(program)
    assert examine(program) is not examine(replace(program, module=copy.deepcopy(program.module)))


def test_training_changes_what_is_cut_but_not_the_analysis(program):
    channels, keep = halved(program)
    first, inputs = examine(program), example_inputs(program, 4, seed=0)
    loss = sum(out.square().sum() for out in _tuple(program.module(*inputs)))
    loss.backward()
    before = results(apply(program, channels, keep), inputs)
    with torch.no_grad():
        for parameter in program.module.parameters():
            parameter -= 0.01 * parameter.grad if parameter.grad is not None else 0
    assert examine(program) is first
    small, masked = apply(program, channels, keep), mask(program, channels, keep)
    assert deviation(results(small, inputs), results(masked, inputs)) < LIMIT
    assert deviation(results(small, inputs), before) > LIMIT


def _tuple(found):
    return (found,) if isinstance(found, torch.Tensor) else found


def test_a_changed_graph_is_analysed_anew():
    program = captured(TOPOLOGIES["chain"]())
    groups = {g.name for g in analyse(program).groups}
    graph = program.module.graph
    inner = [n for n in graph.nodes if n.target is torch.ops.aten.relu.default][-1]
    output = next(n for n in graph.nodes if n.op == "output")
    output.args = ((output.args[0], inner),)
    assert {g.name for g in analyse(program).groups} < groups


def test_a_changed_argument_is_analysed_anew():
    program = captured(Taken())
    before = analyse(program)
    node = next(n for n in program.module.graph.nodes if "slice" in str(n.target))
    node.update_arg(2, 2)
    node.update_arg(3, 8)
    assert analyse(program) != before


def test_a_replaced_parameter_is_cut():
    program = captured(TOPOLOGIES["chain"]())
    channels, keep = halved(program)
    apply(program, channels, keep)
    name, old = next(iter(program.module.named_parameters()))
    owner, _, field = name.rpartition(".")
    setattr(program.module.get_submodule(owner), field, nn.Parameter(torch.randn_like(old)))
    inputs = example_inputs(program, 2, seed=0)
    small, masked = apply(program, channels, keep), mask(program, channels, keep)
    assert deviation(results(small, inputs), results(masked, inputs)) < LIMIT


def test_changed_positions_are_analysed_anew():
    program = captured(Picked())
    analyse(program)
    with torch.no_grad():
        program.module.order.copy_(torch.tensor([5, 4, 0, 1]))
    pruned(program, seed=0, batch=2, share=0.5)


class Taken(nn.Module):
    """Some channels of a convolution, by a slice."""

    shape = (3, 4, 4)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Linear(6, 2)

    def forward(self, x):
        return self.b(torch.ops.aten.slice(self.a(x), 1, 0, 6).mean((2, 3)))


class Picked(nn.Module):
    """Some channels of a convolution, by a buffer of their numbers."""

    shape = (3, 4, 4)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Linear(4, 2)
        self.register_buffer("order", torch.tensor([7, 2, 1, 6]))

    def forward(self, x):
        return self.b(self.a(x).index_select(1, self.order).mean((2, 3)))


def test_code_is_generated_when_asked_for(program):
    channels, keep = halved(program)
    inputs = example_inputs(program, 3, seed=0)
    wanted = results(apply(program, channels, keep), inputs)
    small = apply(program, channels, keep)
    small.module.graph.lint()
    assert "def forward(self" in small.module.code
    named = list(inspect.signature(program.module.forward).parameters)
    assert list(inspect.signature(apply(program, channels, keep).module.forward).parameters) == named
    clone = copy.deepcopy(apply(program, channels, keep).module)
    with torch.no_grad():
        assert deviation(_tuple(clone(*inputs)), wanted) == 0
    again = torch.export.export(apply(program, channels, keep).module, inputs).module()
    with torch.no_grad():
        assert deviation(_tuple(again(*inputs)), wanted) < LIMIT
    assert switch(apply(program, channels, keep), training=True)(*inputs) is not None


def test_names_of_parameters_are_those_of_the_original(program):
    small = apply(program, *halved(program))
    for kind in ("named_parameters", "named_buffers", "named_modules"):
        ours, theirs = (list(getattr(m.module, kind)(remove_duplicate=False)) for m in (small, program))
        kept = [name for name, _ in ours if not name.endswith("_positions")]
        assert kept == [name for name, _ in theirs]
    frozen = dict(program.module.named_parameters())
    assert all(p.requires_grad == frozen[n].requires_grad for n, p in small.module.named_parameters())


def test_an_index_is_a_sequence_of_the_units_positions():
    index = Index(np.array([3, 0, 1, 7]), np.array([0, 1, 3, 4]))
    assert tuple(index) == ((3,), (0, 1), (7,)) == index
    assert (index[1], index[-1], index[1:], len(index)) == ((0, 1), (7,), ((0, 1), (7,)), 3)
    assert index == Index(np.array([3, 0, 1, 7]), np.array([0, 1, 3, 4]))
    assert index != Index(np.array([3, 0, 1, 7]), np.array([0, 2, 3, 4]))
    with pytest.raises(IndexError):
        index[3]
