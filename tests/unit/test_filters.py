"""Interpolative decomposition and vector quantization, against other ways to compute them."""

from itertools import combinations

import pytest
import torch
from torch import nn

from toolchain import registry
from toolchain.contest import reduce
from toolchain.contracts import Evidence
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse
from toolchain.prune.criteria.interpolative import combination, unexplained
from toolchain.prune.criteria.vector_quantization import cluster, joined
from toolchain.values import PrunePlan


def rows(units=7, elements=20, rank=None):
    torch.manual_seed(0)
    found = torch.randn(units, elements, dtype=torch.float64)
    if rank is not None:
        found = torch.randn(units, rank, dtype=torch.float64) @ found[:rank]
    return found


def test_scores_are_what_a_pivoted_qr_leaves():
    """Against plain Gram-Schmidt with pivoting: the longest remainder first."""
    left, wanted, total = rows(), torch.zeros(7, dtype=torch.float64), rows().square().sum()
    for _ in range(7):
        pick = int(left.square().sum(1).argmax())
        wanted[pick] = left[pick].square().sum() / total
        direction = left[pick] / left[pick].norm()
        left = left - (left @ direction)[:, None] * direction
    torch.testing.assert_close(unexplained(rows()), wanted)


def test_filters_that_depend_on_others_score_nothing_and_are_combined_exactly():
    dependent = rows(rank=3)
    scores = unexplained(dependent)
    kept = sorted(scores.topk(3).indices.tolist())
    assert int((scores > 1e-9).sum()) == 3
    shares = combination(dependent, kept)
    torch.testing.assert_close(shares.T @ dependent[kept], dependent)
    torch.testing.assert_close(shares[:, kept], torch.eye(3, dtype=torch.float64))


def test_joining_is_wards():
    """Against the definition: the pair of clusters whose joining adds least to the squared error."""
    points = rows()

    def error(units):
        part = points[list(units)]
        return float((part - part.mean(0)).square().sum())

    clusters, added = [(u,) for u in range(7)], []
    while len(clusters) > 1:
        pair = min(combinations(clusters, 2), key=lambda p: error(p[0] + p[1]) - error(p[0]) - error(p[1]))
        added.append(error(pair[0] + pair[1]) - error(pair[0]) - error(pair[1]))
        clusters = [c for c in clusters if c not in pair] + [pair[0] + pair[1]]
    found = (joined(points) * points.square().sum()).sort().values
    torch.testing.assert_close(found[:-1], torch.tensor(added, dtype=torch.float64))
    assert found[-1] > found[-2]


def test_twins_join_for_nothing_and_are_of_one_cluster():
    points = rows()
    points[4] = points[1]
    scores = joined(points)
    assert scores.argmin() in (1, 4)
    assert float(scores.min()) == pytest.approx(0, abs=1e-12)
    shares = cluster(points, [0, 1, 2])
    assert shares[:, 4].tolist() == [0, 1, 0]
    assert torch.equal(shares[:, :3], torch.eye(3, dtype=torch.float64))


class Net(nn.Module):
    """Two layers without anything that bends between them, so that combinations of filters carry over."""

    def __init__(self, norm):
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.two = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5 * 4, 2)

    def forward(self, x):
        return self.head(self.two(self.norm(self.one(x))).flatten(1))


@pytest.mark.parametrize("norm", [False, True])
def test_what_goes_is_carried_exactly_by_what_stays_where_nothing_bends(norm):
    torch.manual_seed(0)
    network = Net(norm).double().eval()
    with torch.no_grad():
        if norm:
            network.norm.weight.uniform_(0.5, 2)
            network.norm.running_var.uniform_(0.5, 2)
        network.one.weight[4] = 2 * network.one.weight[0] - network.one.weight[1]
        network.one.weight[5] = network.one.weight[2] + network.one.weight[3]
    program = capture(network, (torch.randn(2, 3, 4, 4, dtype=torch.float64),), name="net")
    channels, before = analyse(program), fingerprint(program)
    criterion = registry.find("toolchain.prune.criteria", "CRITERION", "interpolative")
    scores = criterion.score(program, channels, Evidence())["one"]
    kept = tuple(sorted(sorted(range(6), key=lambda u: -scores[u])[:4]))
    plan = PrunePlan(program=before, criterion="interpolative", keep={"one": kept})
    cut = reduce(program, channels, plan)
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(cut.module(x), program.module(x))
    assert fingerprint(program) == before
    other = reduce(program, channels, PrunePlan(program=before, criterion="magnitude", keep={"one": kept}))
    assert not torch.allclose(other.module(x), program.module(x))


def test_one_of_a_cluster_speaks_for_all_also_behind_what_bends():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 2)
    ).eval()
    with torch.no_grad():
        for twin, of in ((4, 0), (5, 2)):
            network[0].weight[twin], network[0].bias[twin] = network[0].weight[of], network[0].bias[of]
    program = capture(network, (torch.randn(2, 3, 8, 8),), name="net")
    plan = PrunePlan(program=fingerprint(program), criterion="vector-quantization", keep={"0": (0, 1, 2, 3)})
    x = torch.randn(5, 3, 8, 8)
    cut = reduce(program, analyse(program), plan)
    torch.testing.assert_close(cut.module(x), program.module(x), rtol=1e-5, atol=1e-6)
