"""What the learners without a barrier do with their channels: price, noise, masks, zeroed kernels."""

import math
from types import SimpleNamespace

import pytest
import torch

from benchmarks.methods import kernel_norms
from tests.networks import Chain, Residual, randomised
from toolchain.learning import lesson_of
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.program.switching import switch
from toolchain.prune.plan import Limit
from toolchain.resources import shape_of
from toolchain.train.learners import bottleneck, l1l2, morphnet


def lesson(network):
    made = randomised(network()).float()
    program = capture(made, (torch.randn(2, *made.shape),), name="network")
    channels = analyse(program)
    shape = shape_of(SimpleNamespace(program=program, channels=channels))
    limit = Limit(name="macs", limit=0.5 * cost(program).macs, terms=shape.terms("macs"))
    return lesson_of(program, channels, shape, [limit])


def test_morphnet_prices_a_channel_by_what_it_costs():
    given = lesson(Chain)
    pressure, module = morphnet.LEARNER.begin(given), given.program.module
    pressure.penalty(module, 0.0).backward()
    slopes = given.usage.slopes({name: float(n) for name, n in pressure.counts(module).items()})[0]
    whole = given.usage.exact({})[0]
    for site, mask in zip(pressure.sites, pressure.learnable(), strict=True):
        expected = morphnet.STRENGTH * slopes[site.name] / whole
        assert torch.allclose(mask.grad, torch.full_like(mask, expected), rtol=1e-5)


def test_a_mask_that_crosses_zero_is_closed_and_widths_are_what_is_open():
    given = lesson(Chain)
    pressure, module = morphnet.LEARNER.begin(given), given.program.module
    state = pressure.state()
    state["conv1"] = torch.tensor([0.5, -0.1, 0.3, -2.0, 0.0, 1.0, 1.0, 0.2])
    pressure.restore(state)
    pressure.settle(module)
    assert pressure.counts(module)["conv1"] == 5
    verdicts = pressure.verdicts(module)
    assert verdicts.widths == {"conv1": 5, "conv2": 12, "fc1": 10}
    assert verdicts.scores["conv1"] == pytest.approx((0.5, 0, 0.3, 0, 0, 1.0, 1.0, 0.2))
    weight = pressure.weights(module, drawn=False)["conv2.weight"]
    assert weight.abs().sum((0, 2, 3)).count_nonzero() == 5


def test_morphnet_never_closes_a_group():
    given = lesson(Chain)
    pressure, module = morphnet.LEARNER.begin(given), given.program.module
    state = pressure.state()
    state["conv1"] = torch.zeros(8)
    pressure.restore(state)
    assert pressure.counts(module)["conv1"] == 1
    assert pressure.weights(module, drawn=False)["conv2.weight"].abs().sum((0, 2, 3)).count_nonzero() == 1


def test_the_bottleneck_s_price_is_that_of_its_source():
    given = lesson(Residual)
    pressure, module = bottleneck.LEARNER.begin(given), given.program.module
    expected = math.log(1 + math.exp(-bottleneck.QUIET))
    assert float(pressure.penalty(module, 0.3).detach()) == pytest.approx(bottleneck.STRENGTH * expected)
    verdicts = pressure.verdicts(module)
    assert verdicts.scores["stem"] == pytest.approx((expected / 2,) * 6)
    assert set(verdicts.blocks) == {"block blocks.0", "block blocks.1", "block blocks.2"}


def test_noise_has_the_variance_that_was_learned_and_drowned_channels_are_closed():
    given = lesson(Residual)
    pressure, module = bottleneck.LEARNER.begin(given), given.program.module
    state = pressure.state()
    state["noise of stem"] = torch.tensor([-4.0, -4.0, 1.0, 1.0, -4.0, 0.5])
    pressure.restore(state)
    assert pressure.counts(module)["stem"] == 3
    torch.manual_seed(0)
    site = next(s for s in pressure.sites if s.name == "stem")
    with torch.no_grad():
        draws = torch.stack([pressure.gate(site, drawn=True) for _ in range(4000)])
    assert torch.allclose(draws.mean(0), torch.ones(6), atol=0.1)
    assert torch.allclose(draws.var(0), state["noise of stem"].exp(), rtol=0.1)
    assert torch.equal(pressure.gate(site, drawn=False), pressure.own["mean of stem"])


def test_kernels_that_hold_next_to_nothing_are_zeroed_and_stay_zero():
    given = lesson(Chain)
    module = switch(given.program, training=True)
    pressure = l1l2.LEARNER.begin(given)
    with torch.no_grad():
        module.get_parameter("conv1.weight")[[2, 5]] *= 1e-4
    pressure.epoch_ends(module)
    assert pressure.counts(module)["conv1"] == 6
    with torch.no_grad():
        module.get_parameter("conv1.weight")[2] += 1.0
    pressure.settle(module)
    assert module.get_parameter("conv1.weight")[[2, 5]].abs().sum() == 0
    scores = pressure.verdicts(module).scores
    assert scores["conv1"][2] == scores["conv1"][5] == 0
    assert sum(sum(s) for s in scores.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("norm", "of"), [(kernel_norms.l1, torch.Tensor.sum), (kernel_norms.l2, torch.linalg.norm)]
)
def test_other_norms_may_press_the_same_kernels(norm, of):
    given = lesson(Chain)
    module = given.program.module
    pressure = l1l2.Kernels(given, norm, 0.25)
    weights = [module.get_parameter(f"{name}.weight") for name in ("conv1", "conv2", "fc1")]
    expected = of(torch.cat([w.detach().abs().flatten(1).mean(1) for w in weights]))
    assert pressure.penalty(module, 0.0).item() == pytest.approx(0.25 * expected.item())


def test_outputs_of_the_network_are_no_kernels_to_press():
    given = lesson(Chain)
    pressure = l1l2.LEARNER.begin(given)
    penalty = pressure.penalty(given.program.module, 0.0)
    (slope,) = torch.autograd.grad(
        penalty, given.program.module.get_parameter("fc2.weight"), allow_unused=True
    )
    assert slope is None
