"""The free oracle: a pruned program equals its original with the removed elements zeroed (float64)."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import TOPOLOGIES
from tests.oracle import EXACT, QUICK, captured_in_double, keeps, relative
from toolchain.program.capture import capture, example_inputs, fingerprint
from toolchain.program.channels import analyse, widths
from toolchain.program.cost import cost, layers, planned_cost
from toolchain.program.rewrite import apply, mask


@functools.cache
def captured(name):
    return captured_in_double(TOPOLOGIES[name](), name)


@functools.cache
def channels_of(name):
    return analyse(captured(name))


@pytest.mark.parametrize("name", TOPOLOGIES)
@QUICK
@given(data=st.data(), batch=st.sampled_from([1, 3]))
def test_pruned_equals_masked_original(name, data, batch):
    program, channels = captured(name), channels_of(name)
    before = fingerprint(program)
    keep = data.draw(keeps(channels))
    small, masked = apply(program, channels, keep), mask(program, channels, keep)
    inputs = example_inputs(program, batch, seed=1)
    with torch.no_grad():
        assert relative(small.module(*inputs), masked.module(*inputs)) < EXACT
    counts = {group: len(units) for group, units in keep.items()}
    assert cost(small) == planned_cost(program, channels, counts)
    sizes = widths(program, channels)
    for name, parameter in small.module.named_parameters():
        assert tuple(parameter.shape) == tuple(sizes.of(name, d, counts) for d in range(parameter.dim()))
    assert fingerprint(program) == before


@pytest.mark.parametrize("name", TOPOLOGIES)
@settings(QUICK, max_examples=3)
@given(data=st.data())
def test_pruned_twice_equals_masked_once_pruned(name, data):
    program, channels = captured(name), channels_of(name)
    once = apply(program, channels, data.draw(keeps(channels)))
    again = analyse(once)
    keep = data.draw(keeps(again))
    inputs = example_inputs(program, 2, seed=2)
    with torch.no_grad():
        twice, masked = apply(once, again, keep).module(*inputs), mask(once, again, keep).module(*inputs)
    assert relative(twice, masked) < EXACT


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_pruned_graph_can_be_exported_again_with_its_sizes_and_dynamic_batch(name):
    program, channels = captured(name), channels_of(name)
    keep = {g.name: tuple(range(0, g.size, 2)) for g in channels.groups}
    small = apply(program, channels, keep)
    again = capture(small.module, example_inputs(small, 2), name=name)
    assert again.inputs[0].shape[0] is None
    assert [str(s) for s in layers(again)] == [str(s) for s in layers(small)]
    inputs = example_inputs(small, 5, seed=3)
    with torch.no_grad():
        assert torch.equal(again.module(*inputs), small.module(*inputs))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_layer_but_the_last_is_prunable(name):
    program, channels = captured(name), channels_of(name)
    prunable = {(m.parameter, m.dim) for g in channels.groups if g.size > 1 for m in g.members}
    weights = [layer.weight for layer in layers(program)]
    assert {w for w in weights if (w, 0) not in prunable} == {weights[-1]}
    assert all("output" in f.reason for f in channels.frozen if f.parameter == weights[-1] and f.dim == 0)


def test_keeping_everything_changes_nothing():
    program = captured("residual")
    whole = apply(program, channels_of("residual"), {})
    assert fingerprint(whole) == fingerprint(program)
