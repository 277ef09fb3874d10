"""Mixed connectivity is taken where it costs fewer nats, and where the target is not slower for it."""

from types import SimpleNamespace

import pytest

from toolchain import mixing
from toolchain.values import Budget

TIED, LOOSE = SimpleNamespace(program="tied"), SimpleNamespace(program="loose")


def taken(monkeypatch, *, nats, ms=(1.0, 1.0), connectivity="mixed", budget=None):
    found = dict(zip(("tied", "loose"), nats, strict=True))
    monkeypatch.setattr(mixing, "damage_together", lambda _, program: found[program])
    monkeypatch.setattr(mixing, "_latencies", lambda *_: list(ms))
    request = SimpleNamespace(budget=budget or Budget(macs=1), connectivity=connectivity)
    run = SimpleNamespace(request=request, notes=[])
    choice = mixing.better(run, TIED, LOOSE)
    return choice, run.notes


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"nats": (2.0, 1.0)}, LOOSE),
        ({"nats": (1.0, 2.0)}, TIED),
        ({"nats": (1.0, 1.0)}, TIED),
        ({"nats": (2.0, 1.0), "ms": (1.0, 1.1)}, TIED),
        ({"nats": (2.0, 1.0), "ms": (1.0, 1.1), "connectivity": "always"}, LOOSE),
        ({"nats": (2.0, 1.0), "ms": (1.0, 1.1), "budget": Budget(ms=1.0)}, LOOSE),
        ({"nats": (1.0, 2.0), "ms": (1.1, 1.0), "connectivity": "always"}, TIED),
    ],
)
def test_what_is_taken(case, expected, monkeypatch):
    choice, notes = taken(monkeypatch, **case)
    assert choice is expected
    assert len(notes) == 1
    assert ("not used" in notes[0]) == (expected is TIED)
    assert f"{case['nats'][1]:.3g} nats against {case['nats'][0]:.3g}" in notes[0]


def test_a_slower_network_is_said_to_be_slower(monkeypatch):
    _, notes = taken(monkeypatch, nats=(2.0, 1.0), ms=(1.0, 1.5))
    assert "slower on the target" in notes[0]
    assert "1.5 ms against 1" in notes[0]
