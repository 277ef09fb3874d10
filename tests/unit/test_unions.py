"""What loose additions put out as a function of how much of each branch is kept: against the cut network."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.networks import Residual, randomised
from toolchain.contest import reduce
from toolchain.damage import Damages
from toolchain.mixing import _holders, _translated, tied_scores
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.connecting import completed, loosened
from toolchain.program.cost import cost
from toolchain.prune.plan import Limit, kept_units, solve, width_axis
from toolchain.prune.unions import unions_of
from toolchain.resources import BLOCK, shape_of
from toolchain.values import PrunePlan


@pytest.fixture(scope="module")
def program():
    network = randomised(Residual()).float()
    return loosened(capture(network, (torch.randn(2, *network.shape),), name="residual"))


@pytest.fixture(scope="module")
def shape(program):
    return shape_of(SimpleNamespace(program=program, channels=analyse(program)))


def drawn(program, shape, seed):
    draw = random.Random(seed)
    channels = analyse(program)
    scores = {g.name: tuple(draw.random() for _ in range(g.size)) for g in channels.groups}
    counts = {g.name: draw.randint(1, g.size) for g in channels.groups}
    counts |= {BLOCK + b.name: 0 for b in shape.blocks if draw.random() < 0.3}
    return channels, scores, counts


@pytest.mark.parametrize("seed", range(8))
def test_resources_are_those_of_the_network_that_the_plan_gives(program, shape, seed):
    channels, scores, counts = drawn(program, shape, seed)
    unions = unions_of(channels, scores, _holders(channels, shape))
    known = SimpleNamespace(**{f: getattr(shape, f) for f in shape.__dataclass_fields__} | {"unions": unions})
    found = type(shape)(**vars(known)).cost(counts)
    keep = kept_units(scores, counts)
    dropped = tuple(name.removeprefix(BLOCK) for name in counts if name.startswith(BLOCK))
    plan = PrunePlan(program="", criterion="", keep=keep, dropped=dropped, connectivity="mixed")
    assert found == cost(reduce(program, channels, plan))
    if not dropped:
        whole = {name: len(units) for name, units in completed(channels, keep).items()}
        assert unions.counts({n: c for n, c in counts.items() if n in keep}) | whole == whole | counts


def test_counts_may_be_arrays_that_broadcast(program, shape):
    channels, scores, _ = drawn(program, shape, 1)
    unions = unions_of(channels, scores, {})
    (name,) = [g.name for g in channels.merged if {n for n, _ in g.sources[0]} == {"stem", "blocks.0.conv2"}]
    found = unions.counts({"stem": np.arange(1, 7)[:, None], "blocks.0.conv2": np.arange(1, 7)[None]})[name]
    assert found.shape == (6, 6)
    for stem in range(1, 7):
        for branch in range(1, 7):
            assert (
                found[stem - 1, branch - 1] == unions.counts({"stem": stem, "blocks.0.conv2": branch})[name]
            )
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()


def test_the_solver_holds_its_limit_with_loose_additions(program, shape):
    channels, scores, _ = drawn(program, shape, 2)
    unions = unions_of(channels, scores, _holders(channels, shape))
    full = cost(program).neurons
    terms = tuple(unions.term(term) for term in shape.terms("neurons"))
    axes = [width_axis(group, scores[group.name], 1) for group in channels.groups]
    solution = solve(axes, [Limit(name="neurons", limit=full / 2, terms=terms)])
    plan = PrunePlan(program="", criterion="", keep=kept_units(scores, solution.counts), connectivity="mixed")
    found = cost(reduce(program, channels, plan)).neurons
    assert solution.feasible
    assert found == solution.amounts["neurons"] <= full / 2


def test_what_was_known_of_tied_branches_is_translated(program):
    channels = analyse(program)
    tied = analyse(capture(program.module, (torch.randn(2, 3, 8, 8),), name="residual"))
    (trunk,) = (g for g in tied.groups if g.name == "stem")
    found = _translated({"stem": trunk.size // 2, BLOCK + "blocks.1": 0}, tied, channels)
    assert found["stem"] == found["blocks.0.conv2"] == trunk.size // 2
    assert found[BLOCK + "blocks.1"] == 0
    assert found["blocks.2.conv1"] == 10
    damages = Damages(
        criterion="", scores={g.name: (1.0,) * g.size for g in channels.groups}, scale={}, blocks={}
    )
    scores = tied_scores(damages.scores, channels, tied)
    assert scores["stem"] == (2.0,) * 6
    assert scores["blocks.0.conv1"] == (1.0,) * 6
