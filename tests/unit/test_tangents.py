"""What a budget's resources are of open gates: exact against the cut network, slopes against differences."""

import random
from types import SimpleNamespace

import pytest
import torch

from tests.unit.test_program_blocks import Net
from toolchain.contest import reduce
from toolchain.program.capture import capture
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.prune.plan import Limit, Term
from toolchain.prune.tangents import REACH, Usage
from toolchain.resources import BLOCK, shape_of
from toolchain.values import PrunePlan

RESOURCES = ("macs", "params", "neurons")
LIMITS = {"macs": 50_000.0, "params": 1000.0, "neurons": 700.0}


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    return capture(Net(inplace=False), (torch.randn(2, 3, 8, 8),), name="net")


@pytest.fixture(scope="module")
def shape(program):
    return shape_of(SimpleNamespace(program=program, channels=analyse(program)))


@pytest.fixture(scope="module")
def usage(program, shape):
    limits = tuple(Limit(name=r, limit=LIMITS[r], terms=shape.terms(r)) for r in RESOURCES)
    return Usage(limits=limits, sizes={g.name: g.size for g in analyse(program).groups})


def drawn(program, shape, seed):
    draw = random.Random(seed)
    groups = analyse(program).groups
    keep = {g.name: tuple(sorted(draw.sample(range(g.size), draw.randint(1, g.size)))) for g in groups}
    return keep, tuple(b.name for b in shape.blocks if draw.random() < 0.5)


@pytest.mark.parametrize("seed", range(6))
def test_the_volume_of_open_gates_is_that_of_the_cut_network(program, shape, usage, seed):
    keep, dropped = drawn(program, shape, seed)
    counts = {n: len(units) for n, units in keep.items()} | {BLOCK + name: 0 for name in dropped}
    plan = PrunePlan(program="", criterion="random", keep=keep, dropped=dropped)
    found = cost(reduce(program, analyse(program), plan))
    assert usage.names == RESOURCES
    assert usage.exact(counts) == pytest.approx([getattr(found, r) / LIMITS[r] for r in RESOURCES])
    whole = cost(program)
    assert usage.exact({}) == pytest.approx([getattr(whole, r) / LIMITS[r] for r in RESOURCES])


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_of_a_count_is_the_difference_that_one_unit_makes(program, shape, usage, seed):
    keep, _ = drawn(program, shape, seed)
    sizes = usage.sizes
    counts = {n: max(2, min(len(units), sizes[n] - 1)) for n, units in keep.items() if sizes[n] > 2}
    slopes = usage.slopes(counts)
    for name in counts:
        more = usage.exact({**counts, name: counts[name] + 1})
        less = usage.exact({**counts, name: counts[name] - 1})
        for k in range(len(RESOURCES)):
            assert slopes[k][name] == pytest.approx((more[k] - less[k]) / 2)


def test_a_block_is_worth_what_is_in_it(shape, usage):
    blocks = {BLOCK + block.name: 0.6 for block in shape.blocks}
    counts = {n: float(size) for n, size in usage.sizes.items()}
    slopes = usage.slopes({**counts, **blocks})
    with_all, lone = usage.exact({}), shape.blocks[0].name
    alone = usage.slopes({**counts, BLOCK + lone: 1.0})
    without = usage.exact({BLOCK + lone: 0})
    for k in range(len(RESOURCES)):
        assert alone[k][BLOCK + lone] == pytest.approx(with_all[k] - without[k])
        assert all(slopes[k][name] > 0 for name in blocks)


def test_latency_is_looked_at_over_whole_steps():
    """A staircase of 8 channels a step is flat almost everywhere; its secant over a step is not."""
    stairs = Term(axes=("a",), values=lambda counts: -(-counts["a"] // 8) * 1.0)
    reach = REACH["ms"]
    usage = Usage(limits=(Limit(name="ms", limit=4.0, terms=(stairs,)),), sizes={"a": 64})
    (slopes,) = usage.slopes({"a": 29.0})
    assert slopes["a"] == pytest.approx((5 - 3) / (2 * reach) / 4)
    counted = Usage(limits=(Limit(name="macs", limit=4.0, terms=(stairs,)),), sizes={"a": 64})
    assert counted.slopes({"a": 29.0})[0]["a"] == 0


def test_what_a_narrowest_group_uses_has_no_slope():
    line = Term(axes=("a",), values=lambda counts: counts["a"] * 1.0)
    usage = Usage(limits=(Limit(name="macs", limit=1.0, terms=(line,)),), sizes={"a": 1})
    assert usage.slopes({"a": 1.0}) == ({"a": 0.0},)
