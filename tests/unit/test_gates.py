"""Gates of groups and blocks: counting, minima, dead blocks, and how a barrier moves them."""

import math
from types import SimpleNamespace

import pytest
import torch

from tests.networks import Residual, randomised
from toolchain.contest import reduce
from toolchain.learning import lesson_of
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.program.slices import energies
from toolchain.prune.plan import Limit
from toolchain.resources import BLOCK, shape_of
from toolchain.train.gates import OPEN, SPREAD, Gates
from toolchain.train.learners import bar, l0
from toolchain.values import PrunePlan


@pytest.fixture(scope="module")
def program():
    network = randomised(Residual()).float()
    return capture(network, (torch.randn(2, *network.shape),), name="residual")


def lesson(program, *, share=0.5, transition="linear"):
    channels = analyse(program)
    shape = shape_of(SimpleNamespace(program=program, channels=channels))
    limit = Limit(name="neurons", limit=share * cost(program).neurons, terms=shape.terms("neurons"))
    return lesson_of(program, channels, shape, [limit], transition)


def with_gates(gates, **log_alpha):
    state = gates.state()
    for name, values in log_alpha.items():
        state[name.replace("__", ".").replace("block_", BLOCK)] = torch.tensor(values)
    gates.restore(state)


def test_all_gates_are_open_at_first(program):
    given = lesson(program)
    gates = Gates(given)
    assert gates.counts(program.module) == {s.name: s.size for s in given.sites}
    found = gates.weights(program.module, drawn=False)
    named = dict(program.module.named_parameters())
    assert all(torch.equal(weight, named[name]) for name, weight in found.items())


def test_counts_are_what_a_cut_leaves(program):
    given = lesson(program)
    gates = Gates(given)
    with_gates(gates, stem=[2.0, -4.0, 2.0, 2.0, -4.0, 2.0], block_blocks__2=[-4.0])
    counts = gates.counts(program.module)
    assert counts["stem"] == 4
    assert counts[BLOCK + "blocks.2"] == 0
    plan = PrunePlan(program="", criterion="", keep={"stem": (0, 2, 3, 5)}, dropped=("blocks.2",))
    cut = reduce(program, analyse(program), plan)
    assert given.usage.exact(counts)[0] * given.usage.limits[0].limit == cost(cut).neurons


def test_a_group_never_closes_altogether(program):
    gates = Gates(lesson(program))
    with_gates(gates, stem=[-9.0, -8.0, -7.0, -8.0, -9.0, -9.0])
    assert gates.counts(program.module)["stem"] == 1
    weights = gates.weights(program.module, drawn=False)
    assert weights["blocks.0.conv1.weight"].abs().sum((0, 2, 3)).nonzero().flatten().tolist() == [2]
    assert (
        gates.verdicts(program.module)
        .scores["stem"]
        .index(max(gates.verdicts(program.module).scores["stem"]))
        == 2
    )


def test_a_block_whose_inside_has_closed_is_gone_and_costs_nothing(program):
    given = lesson(program)
    assert given.inside[BLOCK + "blocks.0"] == ("blocks.0.conv1",)
    gates = Gates(given)
    assert gates.verdicts(program.module).blocks[BLOCK + "blocks.0"] > 3
    with_gates(gates, blocks__0__conv1=[-9.0] * 6)
    assert gates.counts(program.module)[BLOCK + "blocks.0"] == 0
    assert gates.verdicts(program.module).blocks[BLOCK + "blocks.0"] == 0


def descend(pressure, program, done, steps):
    optimizer = torch.optim.Adam(pressure.learnable(), lr=0.1)
    for _ in range(steps):
        penalty = pressure.penalty(program.module, done)
        if penalty is None:
            break
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()


def spread(gates, seed=0):
    """Gates that have learned to be of different use."""
    random = torch.Generator().manual_seed(seed)
    state = gates.state()
    for site in gates.sites:
        state[site.name] = state[site.name] + torch.randn(site.size, generator=random)
    gates.restore(state)


def test_the_barrier_presses_until_the_budget_is_held_and_no_further(program):
    pressure = bar.LEARNER.begin(lesson(program, share=0.5))
    spread(pressure)
    descend(pressure, program, 1.0, 300)
    usage = pressure.lesson.usage
    expected = {name: float(count.detach()) for name, count in pressure.expected().items()}
    assert 0.5 < usage.near(expected)[0] <= 1
    assert pressure.penalty(program.module, 1.0) is None


def test_the_penalty_grows_as_the_budget_moves_to_the_volume(program):
    pressure = bar.LEARNER.begin(lesson(program, share=0.5))
    spread(pressure)
    found = [float(pressure.penalty(program.module, done).detach()) for done in (0.0, 0.05, 0.1)]
    assert found == sorted(found)
    assert found[0] > 0


def test_beyond_the_moving_budget_the_barrier_weighs_more_and_more_and_then_less_again(program):
    pressure = bar.LEARNER.begin(lesson(program, share=0.5))
    module, weights = program.module, lambda: pressure.state()[bar.WEIGHTS][0][0]
    pressure.penalty(module, 0.0)
    assert weights() == bar.STRENGTH
    for done in (0.6, 0.7, 0.8):
        pressure.penalty(module, done)
    assert weights() == pytest.approx(bar.STRENGTH * math.exp(3 * bar.PATIENCE))
    state = pressure.state()
    for site in pressure.sites:
        state[site.name] = torch.full((site.size,), -9.0)
    pressure.restore(state)
    pressure.penalty(module, 0.9)
    assert weights() == pytest.approx(bar.STRENGTH * math.exp(2 * bar.PATIENCE))
    fresh = bar.LEARNER.begin(lesson(program, share=0.5))
    fresh.restore({**state, bar.WEIGHTS: ([bar.STRENGTH], 0.0)})
    fresh.penalty(module, 0.9)
    assert fresh.state()[bar.WEIGHTS] == ([bar.STRENGTH], 0.9), "never less than at the start"


def test_a_limit_that_the_whole_network_holds_presses_nothing(program):
    pressure = bar.LEARNER.begin(lesson(program, share=1.5))
    assert pressure.penalty(program.module, 1.0) is None


def test_l0_presses_whatever_is_used(program):
    pressure = l0.LEARNER.begin(lesson(program, share=1.5))
    before = float(pressure.penalty(program.module, 0.0))
    total = sum(site.size for site in pressure.lesson.sites)
    expected = sum(float(count.detach()) for count in pressure.expected().values())
    assert before == pytest.approx(l0.STRENGTH * expected / total)
    descend(pressure, program, 0.5, 200)
    held = {site.name: site.minimum for site in pressure.lesson.sites}
    assert {n: c for n, c in pressure.counts(program.module).items() if n in held} == held


def test_draws_are_gates_and_reach_the_gates(program):
    gates = Gates(lesson(program))
    torch.manual_seed(0)
    drawn = gates.weights(program.module, drawn=True)
    again = gates.weights(program.module, drawn=True)
    assert any(not torch.equal(drawn[n], again[n]) for n in drawn)
    sum(weight.sum() for weight in drawn.values()).backward()
    assert any(tensor.grad.abs().sum() > 0 for tensor in gates.learnable())


def test_gates_start_open_the_more_so_the_more_weight_a_channel_has(program):
    gates = Gates(lesson(program))
    for group in analyse(program).groups:
        start, weights = gates.own[group.name].detach(), energies(program, group)
        assert start.min() == OPEN
        assert start.max() == OPEN + SPREAD
        assert start.argsort().tolist() == torch.tensor(weights).argsort().tolist()
