"""Every learner, by registry: verdicts on all units, weights in their shapes, a state that comes back."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.networks import TOPOLOGIES, randomised
from toolchain import registry
from toolchain.learning import lesson_of
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse
from toolchain.program.cost import cost
from toolchain.prune.plan import Limit
from toolchain.resources import BLOCK, shape_of

LEARNERS = registry.names("toolchain.train.learners")
NETWORKS = ("residual", "concatenation", "depthwise, squeeze and excite", "attention")


def learner(name):
    return registry.find("toolchain.train.learners", "LEARNER", name)


@pytest.fixture(scope="module", params=NETWORKS)
def lesson(request):
    made = randomised(TOPOLOGIES[request.param]()).float()
    program = capture(made, (torch.randn(2, *made.shape),), name=request.param)
    channels = analyse(program)
    shape = shape_of(SimpleNamespace(program=program, channels=channels))
    limit = Limit(name="macs", limit=0.5 * cost(program).macs, terms=shape.terms("macs"))
    return lesson_of(program, channels, shape, [limit])


def complete(lesson, verdicts):
    assert {n: len(v) for n, v in verdicts.scores.items()} == {g.name: g.size for g in lesson.channels.groups}
    assert all(math.isfinite(s) and s >= 0 for scores in verdicts.scores.values() for s in scores)
    assert all(math.isfinite(s) and s >= 0 for s in verdicts.blocks.values())
    assert all(name.startswith(BLOCK) for name in verdicts.blocks)
    if verdicts.widths is not None:
        sizes = {g.name: g.size for g in lesson.channels.groups}
        assert all(0 <= verdicts.widths[name] <= size for name, size in sizes.items())


def test_the_methods_of_the_documents_are_found():
    assert {"bar", "l0", "uniform"} <= set(LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_keeps_the_contract(name, lesson):
    found, before = learner(name), fingerprint(lesson.program)
    assert found.name == name
    assert found.summary
    if found.begin is None:
        scores = {g.name: tuple(float(u) for u in range(g.size)) for g in lesson.channels.groups}
        complete(lesson, found.judge(lesson, scores))
        return
    module, pressure = lesson.program.module, found.begin(lesson)
    shapes = {n: p.shape for n, p in module.named_parameters(remove_duplicate=False)}
    for drawn in (True, False):
        weights = pressure.weights(module, drawn=drawn)
        assert all(weight.shape == shapes[n] for n, weight in weights.items())
    for done in (0.0, 0.5, 1.0):
        penalty = pressure.penalty(module, done)
        assert penalty is None or (penalty.dim() == 0 and math.isfinite(float(penalty.detach())))
    sizes = {site.name: site.size for site in lesson.sites}
    assert all(0 <= count <= sizes[n] for n, count in pressure.counts(module).items())
    complete(lesson, pressure.verdicts(module))
    assert fingerprint(lesson.program) == before
    state = pressure.state()
    another = found.begin(lesson)
    another.restore(state)
    assert another.verdicts(module) == pressure.verdicts(module)


@pytest.mark.parametrize("name", LEARNERS)
def test_strength_multiplies_the_penalty_where_there_is_one(name, lesson):
    found = learner(name)
    if found.begin is None:
        assert not found.penalizes
        return
    module = lesson.program.module
    plain, strong = (found.begin(replace(lesson, strength=s)).penalty(module, 0.9) for s in (1.0, 3.0))
    if not found.penalizes:
        assert plain is None
        return
    assert plain is not None
    assert plain.item() > 0
    assert strong.item() == pytest.approx(3 * plain.item(), rel=1e-5)
