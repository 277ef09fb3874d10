"""The narrow network's share of the original's time: pairs are added while they disagree."""

from types import SimpleNamespace

import pytest

from toolchain import timing


@pytest.mark.parametrize(
    ("noise", "rounds"), [([1.0, 1.01, 0.99, 1.0, 1.02, 0.98], 1), ([1.0, 1.0, 1.6, 1.0, 1.7, 1.0], 4)]
)
def test_pairs_are_added_until_the_share_is_clear(monkeypatch, noise, rounds):
    attempts = []

    def measure(run, artifacts, sampling, *, attempt):
        attempts.append(attempt)
        assert artifacts == ["original", "narrow"]
        whole = tuple((2.0 * n,) for n in (1.0, 1.3, 1.0, 1.2, 1.0, 1.1))  # both meet the same disturbance
        small = tuple((before[0] * 0.4 * n,) for before, n in zip(whole, noise, strict=True))
        return SimpleNamespace(samples_ms=whole), SimpleNamespace(samples_ms=small)

    monkeypatch.setattr(timing, "measure", measure)
    monkeypatch.setattr(timing, "reduce", lambda program, channels, plan: "small")
    monkeypatch.setattr(timing, "fingerprint", lambda program: "")
    monkeypatch.setattr(timing, "build_for", lambda run, program, kinds, in_float: {kinds[0]: "narrow"})
    kind = ("r", "fp32")
    run, baseline = (
        SimpleNamespace(program=None, channels=None),
        SimpleNamespace(artifacts={kind: "original"}),
    )
    share = timing._share(run, baseline, kind, {"a": 1}, ())
    assert attempts == list(range(rounds))
    assert share == pytest.approx(0.4, rel=0.02)
