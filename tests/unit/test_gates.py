"""Gates of groups: counting, minima, dead blocks, loose additions, and how a barrier moves them."""

import math
from types import SimpleNamespace

import pytest
import torch

from tests.networks import Residual, randomised
from toolchain.contest import reduce
from toolchain.learning import lesson_of
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.connecting import completed, loosened
from toolchain.program.cost import cost
from toolchain.program.slices import energies
from toolchain.prune.plan import Limit
from toolchain.resources import BLOCK, shape_of
from toolchain.train import budgeted
from toolchain.train.gates import OPEN, SPREAD, Gates
from toolchain.train.hard_concrete import survival
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
    return lesson_of(program, channels, shape, [limit], transition=transition)


def with_gates(gates, **log_alpha):
    state = gates.state()
    for name, values in log_alpha.items():
        state[name.replace("__", ".")] = torch.tensor(values)
    gates.restore(state)


def test_all_gates_are_open_at_first(program):
    given = lesson(program)
    gates = Gates(given)
    assert gates.counts(program.module) == {g.name: g.size for g in given.channels.groups}
    found = gates.weights(program.module, drawn=False)
    named = dict(program.module.named_parameters())
    assert all(torch.equal(weight, named[name]) for name, weight in found.items())


def test_counts_are_what_a_cut_leaves(program):
    given = lesson(program)
    gates = Gates(given)
    with_gates(gates, stem=[2.0, -4.0, 2.0, 2.0, -4.0, 2.0], blocks__2__conv1=[-4.0] * 10)
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


def test_blocks_are_as_likely_as_any_gate_of_every_group_inside(program):
    gates = Gates(lesson(program))
    assert float(gates.expected()[BLOCK + "blocks.0"].detach()) == pytest.approx(1.0)
    with_gates(gates, blocks__0__conv1=[-1.0, -9.0, -2.0, -9.0, -9.0, -9.0])
    open_ = survival(torch.tensor([-1.0, -9.0, -2.0, -9.0, -9.0, -9.0]))
    wanted = 1 - float((1 - open_).prod())
    assert float(gates.expected()[BLOCK + "blocks.0"].detach()) == pytest.approx(wanted)


def test_a_block_whose_inside_has_closed_is_gone_and_costs_nothing(program):
    given = lesson(program)
    assert given.inside[BLOCK + "blocks.0"] == ("blocks.0.conv1",)
    gates = Gates(given)
    inside = gates.verdicts(program.module).scores["blocks.0.conv1"]
    assert gates.verdicts(program.module).blocks[BLOCK + "blocks.0"] == sum(inside)
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
    module, weights = program.module, lambda: pressure.state()[budgeted.WEIGHTS][0][0]
    pressure.penalty(module, 0.0)
    assert weights() == budgeted.STRENGTH
    for done in (0.6, 0.7, 0.8):
        pressure.penalty(module, done)
    assert weights() == pytest.approx(budgeted.STRENGTH * math.exp(3 * budgeted.PATIENCE))
    state = pressure.state()
    for site in pressure.sites:
        state[site.name] = torch.full((site.size,), -9.0)
    pressure.restore(state)
    pressure.penalty(module, 0.9)
    assert weights() == pytest.approx(budgeted.STRENGTH * math.exp(2 * budgeted.PATIENCE))
    fresh = bar.LEARNER.begin(lesson(program, share=0.5))
    fresh.restore({**state, budgeted.WEIGHTS: ([budgeted.STRENGTH], 0.0)})
    fresh.penalty(module, 0.9)
    assert fresh.state()[budgeted.WEIGHTS] == ([budgeted.STRENGTH], 0.9), "never less than at the start"


def test_a_limit_that_the_whole_network_holds_presses_nothing(program):
    pressure = bar.LEARNER.begin(lesson(program, share=1.5))
    assert pressure.penalty(program.module, 1.0) is None


def test_l0_presses_whatever_is_used(program):
    pressure = l0.LEARNER.begin(lesson(program, share=1.5))
    before = float(pressure.penalty(program.module, 0.0).detach())
    total = sum(site.size for site in pressure.sites)
    expected = sum(float(pressure.expected()[site.name].detach()) for site in pressure.sites)
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


@pytest.fixture(scope="module")
def loose(program):
    return loosened(program)


def test_gates_of_branches_count_what_their_sums_have(loose):
    given = lesson(loose)
    gates = Gates(given)
    random = torch.Generator().manual_seed(3)
    state = gates.state()
    for site in gates.sites:
        state[site.name] = torch.randn(site.size, generator=random) * 3 - 1.6
    gates.restore(state)
    counts = gates.counts(loose.module)
    open_ = {s.name: survival(gates.log_alpha(s).detach()) > 0.5 for s in gates.sites}
    keep = {n: tuple(each.nonzero().flatten().tolist()) for n, each in open_.items()}
    dead = tuple(name.removeprefix(BLOCK) for name in counts if name.startswith(BLOCK))
    plan = PrunePlan(program="", criterion="", keep=keep, dropped=dead, connectivity="mixed")
    cut = reduce(loose, analyse(loose), plan)
    assert given.usage.exact(counts)[0] * given.usage.limits[0].limit == cost(cut).neurons
    if not dead:
        whole = {n: len(units) for n, units in completed(given.channels, keep).items()}
        assert counts == whole


def test_sums_are_expected_as_often_as_draws_have_them(loose):
    gates = Gates(lesson(loose))
    spread(gates)
    state = gates.state()
    gates.restore({name: values - 3.5 for name, values in state.items()})
    likely = {s.name: survival(gates.log_alpha(s)).detach() for s in gates.sites}
    random = torch.Generator().manual_seed(0)
    drawn = {n: (torch.rand(4000, len(p), generator=random) < p).float() for n, p in likely.items()}
    expected = gates.expected()
    for group in gates.lesson.channels.merged:
        there = torch.stack(
            [torch.stack([drawn[n][:, u] for n, u in units]).amax(0) for units in group.sources]
        )
        assert float(expected[group.name].detach()) == pytest.approx(float(there.sum(0).mean()), abs=0.1)


def test_a_branch_s_gates_multiply_its_last_scale_and_shift(loose):
    gates = Gates(lesson(loose))
    factors = {s.name: {f.parameter for f in s.factors} for s in gates.sites}
    assert factors["blocks.0.conv2"] == {"blocks.0.bn2.weight", "blocks.0.bn2.bias"}
    assert factors["stem"] == {"stem.weight", "stem.bias"}
    assert factors["blocks.0.conv1"] == {"blocks.0.conv2.weight"}
