"""Criteria against their definitions, computed another way."""

import pytest
import torch
from torch import nn

from toolchain import registry
from toolchain.contracts import Evidence
from toolchain.errors import InputError
from toolchain.program.capture import capture
from toolchain.program.channels import analyse


class Net(nn.Module):
    """Two convolutions and a linear layer; one group each for `one` and `two`."""

    def __init__(self, norm=True, **second):
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.two = nn.Conv2d(6, 8, 3, **second)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        y = torch.relu(self.two(torch.relu(self.norm(self.one(x)))))
        return self.head(y.mean((2, 3)))


def made(**options):
    torch.manual_seed(0)
    network = Net(**options).eval()
    if options.get("norm", True):
        with torch.no_grad():
            network.norm.weight.uniform_(-2, 2)
    return network


def scored(name, network, samples=8):
    torch.manual_seed(1)
    x, target = torch.randn(samples, 3, 9, 9), torch.randint(0, 4, (samples,))
    program = capture(network, (x[:2],), name="net")
    criterion = registry.find("toolchain.prune.criteria", "CRITERION", name)
    scores = criterion.score(program, analyse(program), Evidence(batches=(((x,), target),)))
    return {n: torch.tensor(s, dtype=torch.float64) for n, s in scores.items()}, x, target


def test_bn_scale_is_the_magnitude_of_the_scale():
    network = made()
    found, _, _ = scored("bn-scale", network)
    scale = network.norm.weight.detach().double().abs()
    torch.testing.assert_close(found["one"], scale / scale.mean())
    assert float(found["two"].mean()) == pytest.approx(1)


def test_bn_scale_without_batch_norm_is_refused():
    with pytest.raises(InputError, match="needs batch norms"):
        scored("bn-scale", made(norm=False))


def test_geometric_median_gives_twins_the_least():
    network = made()
    with torch.no_grad():
        middle = network.two.weight.mean(0)
        network.two.weight[3] = middle
        network.two.weight[5] = middle
    found, _, _ = scored("geometric-median", network)
    assert set(found["two"].argsort()[:2].tolist()) == {3, 5}
    filters = network.two.weight.detach().double().flatten(1)
    far = torch.stack([(filters - f).norm(dim=1).sum() for f in filters])
    torch.testing.assert_close(found["two"], far / far.mean())


def test_activation_is_the_mean_where_it_is_read():
    network = made()
    found, x, _ = scored("activation", network)
    with torch.no_grad():
        active = torch.relu(network.norm(network.one(x))).double().mean((0, 2, 3))
    torch.testing.assert_close(found["one"], active / active.mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "second",
    [
        {},
        {"padding": 1, "stride": 2},
        {"padding": "same", "dilation": 2},
        {"padding": "valid"},
        {"groups": 2, "padding": (0, 1)},
    ],
    ids=str,
)
def test_reconstruction_is_what_the_next_layer_loses(second):
    network = made(**second)
    found, x, _ = scored("reconstruction", network)
    with torch.no_grad():
        read = torch.relu(network.norm(network.one(x)))
        bias = network.two.bias[:, None, None]
        whole = (network.two(read) - bias).double()
        lost = []
        for channel in range(6):
            alone = torch.zeros_like(read)
            alone[:, channel] = read[:, channel]
            lost.append((network.two(alone) - bias).double().square().sum() / whole.square().sum())
    wanted = torch.stack(lost)
    if second.get("groups"):  # a unit is an index within the groups: one channel of each
        torch.testing.assert_close(found["one"], wanted.reshape(2, 3).sum(0), rtol=1e-4, atol=1e-7)
    else:
        torch.testing.assert_close(found["one"], wanted, rtol=1e-4, atol=1e-7)


def test_obd_is_half_the_weight_energy_times_the_fisher_information():
    network = made()
    found, x, target = scored("obd", network)
    loss = nn.functional.cross_entropy(network(x), target)
    loss.backward()
    damage = {n: (p.detach().double() * p.grad.double()).square() / 2 for n, p in network.named_parameters()}
    wanted = damage["two.weight"].sum((1, 2, 3)) + damage["two.bias"] + damage["head.weight"].sum(0)
    torch.testing.assert_close(found["two"], wanted, rtol=1e-4, atol=1e-12)
