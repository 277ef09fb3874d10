"""Families that torchvision lacks: exact when pruned, nearly all prunable, and alive afterwards."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.networks import TOPOLOGIES
from tests.oracle import captured_in_double, deviation, prunable, pruned, results
from tests.published import PUBLISHED
from toolchain.contracts import Silent
from toolchain.program.capture import capture, example_inputs, open_program, save_program, switch
from toolchain.program.channels import analyse
from toolchain.program.cost import layers
from toolchain.program.rewrite import apply
from toolchain.train.data import open_data
from toolchain.train.loop import fine_tune
from toolchain.train.metric import resolve
from toolchain.values import Preprocessing, Training

EVERY = {**TOPOLOGIES, **PUBLISHED}
CLASSIFIERS = ("Highway", "pre-activation ResNet", "WideResNet", "Inception-ResNet")


@functools.cache
def captured(name):
    return captured_in_double(EVERY[name](), name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_pruned_by_half_equals_masked_original(name):
    pruned(captured(name), seed=0, batch=3, share=0.5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_pruned_unevenly_and_again_equals_masked_original(name):
    for seed in range(3):
        once = pruned(captured(name), seed=seed, batch=1)
        pruned(once, seed=seed + 10, batch=5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_nearly_all_channels_outside_the_heads_are_prunable(name):
    program, heads = captured(name), EVERY[name]().heads
    can_go, all_ = prunable(program, analyse(program), without=heads)
    assert can_go >= 0.99 * all_ > 0
    assert prunable(program, analyse(program))[0] == can_go
    assert not analyse(program).unknown


@pytest.mark.parametrize("name", EVERY)
def test_a_pruned_graph_is_trained_saved_opened_and_pruned_again(name, tmp_path):
    small = pruned(captured(name), seed=4, batch=2, share=0.5)
    training = switch(small, training=True)
    optimizer = torch.optim.SGD(training.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in training.parameters()]
    torch.manual_seed(0)
    found = training(*example_inputs(small, 4, seed=5))
    loss = sum(output.square().mean() for output in (found if isinstance(found, tuple) else (found,)))
    loss.backward()
    # A bias before a norm has no gradient, but no tensor of the graph may be cut off from the loss.
    assert all(p.grad is not None for p in training.parameters())
    optimizer.step()
    assert any(not torch.equal(p, b) for p, b in zip(training.parameters(), before, strict=True))
    trained = replace(small, module=training)
    trained = replace(small, module=switch(trained, training=False))
    save_program(trained, tmp_path / "small.pt2")
    opened = open_program(tmp_path / "small.pt2")
    assert opened.inputs == small.inputs
    assert opened.inputs[0].shape[0] is None
    assert [str(s) for s in layers(opened)] == [str(s) for s in layers(small)]
    inputs = example_inputs(small, 7, seed=6)
    assert deviation(results(opened, inputs), results(trained, inputs)) == 0
    pruned(opened, seed=7, batch=3)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_pruned_network_is_fine_tuned_by_the_loop(name, tmp_path):
    torch.manual_seed(0)
    network = PUBLISHED[name]()
    _, high, wide = network.shape
    program = capture(network, (torch.randn(2, *network.shape),), name=name)
    channels = analyse(program)
    small = apply(program, channels, {g.name: tuple(range(0, g.size, 2)) for g in channels.groups})
    y = np.arange(96) % 4
    x = np.random.default_rng(0).integers(0, 100, (96, 3, high, wide))
    x[np.arange(96), y % 3] += 40 * (1 + y // 3)[:, None, None]
    np.savez(tmp_path / "d.npz", x=x.astype(np.uint8), y=y)
    data = open_data(str(tmp_path / "d.npz"), preprocessing=Preprocessing(), program_inputs=program.inputs)
    tuned = fine_tune(
        small, teacher=program, data=data, metric=resolve("top1"), folder=tmp_path / "work",
        training=Training(epochs=2, lr=0.02, batch_size=16), progress=Silent(),
    )  # fmt: skip
    assert len(tuned.history) == 2
    assert all(np.isfinite(epoch.loss) for epoch in tuned.history)
    assert [str(s) for s in layers(tuned.program)] == [str(s) for s in layers(small)]
    again = analyse(tuned.program)
    smaller = apply(tuned.program, again, {g.name: (0,) for g in again.groups})
    assert results(smaller, example_inputs(smaller, 3))[0].shape == (3, *program.outputs[0].shape[1:])
