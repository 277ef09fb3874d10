"""Every criterion, by registry: a finite score >= 0 for every unit, repeatable, nothing changed."""

import math

import pytest
import torch

from tests.networks import TOPOLOGIES, randomised
from toolchain import registry
from toolchain.contracts import Evidence
from toolchain.errors import InputError
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse

CRITERIA = registry.names("toolchain.prune.criteria")


def criterion(name):
    return registry.find("toolchain.prune.criteria", "CRITERION", name)


@pytest.fixture(scope="module", params=TOPOLOGIES)
def network(request):
    made = randomised(TOPOLOGIES[request.param]()).float()
    torch.manual_seed(1)
    program = capture(made, (torch.randn(2, *made.shape),), name=request.param)
    with torch.no_grad():
        output = program.module(torch.randn(2, *made.shape))
    first = output if isinstance(output, torch.Tensor) else output[0]
    target = torch.randint(0, 2, (10, *first.shape[2:])) if first.dim() > 1 else torch.zeros(10)
    return program, analyse(program), (((torch.randn(10, *made.shape),), target),)


def batch_norms(program):
    return [n for n in program.module.graph.nodes if "batch_norm" in str(n.target)]


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_complete_finite_repeatable_and_change_nothing(name, network):
    program, channels, batches = network
    before = fingerprint(program)
    found = criterion(name)
    evidence = Evidence(batches=batches if found.needs_data else (), seed=3)
    if name == "bn-scale" and not batch_norms(program):
        with pytest.raises(InputError, match="needs batch norms"):
            found.score(program, channels, evidence)
        return
    scores = found.score(program, channels, evidence)
    assert {n: len(s) for n, s in scores.items()} == {g.name: g.size for g in channels.groups}
    assert all(math.isfinite(v) and v >= 0 for s in scores.values() for v in s)
    assert found.score(program, channels, evidence) == scores
    assert fingerprint(program) == before


@pytest.mark.parametrize("name", [n for n in CRITERIA if criterion(n).needs_data])
def test_one_that_needs_data_says_so(name, network):
    program, channels, _ = network
    with pytest.raises(InputError, match=f"'{name}' needs data"):
        criterion(name).score(program, channels, Evidence())
