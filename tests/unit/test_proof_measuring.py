"""When the measurement of a result is repeated: unclear, or over where the same widths held before."""

from types import SimpleNamespace

import pytest

from tests.unit.test_closing import measurement
from toolchain import proof
from toolchain.closing import Round
from toolchain.values import Budget

LIMIT = 1.0
HELD, OVER, UNCLEAR = 0.9, 1.2, 1.0


@pytest.mark.parametrize(
    ("found", "rounds", "taken"),
    [
        ([HELD], [HELD], 1),
        ([UNCLEAR, HELD], [], 2),
        ([UNCLEAR, UNCLEAR, UNCLEAR], [], 3),
        ([OVER], [], 1),
        ([OVER], [OVER], 1),
        ([OVER, HELD], [HELD], 2),
        ([OVER, OVER], [OVER, HELD], 2),
        ([UNCLEAR, OVER], [HELD], 2),
        ([OVER], [HELD, None, OVER], 1),  # None: planned again, and never seen to hold since
    ],
)
def test_a_result_is_measured_again_only_while_there_is_doubt(monkeypatch, found, rounds, taken):
    asked = []

    def measure(run, artifacts, sampling, *, attempt):
        asked.append((attempt, sampling.trials))
        return measurement(3.0), measurement(found[len(asked) - 1])

    monkeypatch.setattr(proof, "measure", measure)
    kind = ("r", "fp32")
    runtime = SimpleNamespace(format="r", name="r", runs=lambda precision: True)
    run = SimpleNamespace(
        target=SimpleNamespace(runtimes=[runtime]),
        runtime=lambda name: runtime,
        request=SimpleNamespace(budget=Budget(ms=LIMIT)),
        notes=[],
    )
    number, told = 0, []
    for ms in rounds:
        number = 0 if ms is None else number + 1
        if ms is not None:
            told.append(Round(number=number, estimate_ms=None, measured=measurement(ms), decision=""))
    choice = SimpleNamespace(combination=kind, rounds=tuple(told))
    baseline = SimpleNamespace(artifacts={kind: "original"}, measurements={kind: measurement(3.0)})
    _, results = proof._measure(run, {kind: "result"}, choice, baseline, 1)
    assert asked == [(10 + n, proof.FINAL.trials * 2**n) for n in range(taken)]
    assert results[kind].p50_ms == found[taken - 1]
    assert len(run.notes) == (found[0] == OVER and taken == 2)
