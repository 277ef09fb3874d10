"""Which mixtures of precisions compete, and when none can win."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from toolchain import contenders
from toolchain.contenders import mixable
from toolchain.errors import ConversionError
from toolchain.planning import _leaves_room


def ladder_of(nats, monkeypatch):
    """How many layers the mixtures keep in float where int8 costs these nats, the largest first."""
    names = {f"layer{number}.weight": value for number, value in enumerate(nats)}
    monkeypatch.setattr(contenders, "sensitivities", lambda run: names)
    found = contenders.ladder(SimpleNamespace())
    assert all(kept == tuple(names)[: len(kept)] for kept in found)
    return [len(kept) for kept in found]


@pytest.mark.parametrize(
    ("nats", "counts"),
    [
        ([1.0] * 20, [1, 2, 4, 8]),
        ([1.0] * 5, [1, 2, 4]),  # never all of them: that would be float
        ([1.0], []),
        ([9.0, 0.01, 0.01, 0.01, 0.01], [1]),  # the others carry nothing
        ([4.0, 4.0, 0.01, 0.01, 0.01], [1, 2]),
    ],
)
def test_mixtures_end_where_further_layers_cost_nothing(nats, counts, monkeypatch):
    assert ladder_of(nats, monkeypatch) == counts


def entry(precision, cut, own, *, feasible=True):
    """A planned contender: nats of what is cut, and of the precision."""
    contender = SimpleNamespace(combination=("engine", precision), damage=own)
    return SimpleNamespace(contender=contender, damage=cut + own, solution=SimpleNamespace(feasible=feasible))


@pytest.mark.parametrize(
    ("entries", "room"),
    [
        ([entry("fp32", 0.5, 0.0), entry("int8", 0.1, 0.2)], True),
        ([entry("fp32", 0.05, 0.0), entry("int8", 0.1, 0.2)], False),  # float beats whatever int8 may be
        ([entry("fp32", 0.5, 0.0), entry("int8", 0.1, 0.001)], False),  # nothing to win
        ([entry("fp32", 0.5, 0.0), entry("int8", 0.1, 0.2, feasible=False)], False),  # and slower still
        ([entry("fp32", 0.5, 0.0)], True),  # int8 was refused for what it costs
    ],
)
def test_mixtures_are_made_only_where_they_could_win(entries, room):
    assert _leaves_room("engine", entries) is room


def baseline_of(plain_ms, int8_ms):
    times = {("engine", "fp32"): plain_ms, ("engine", "int8"): int8_ms}
    return SimpleNamespace(
        measurements={c: SimpleNamespace(p50_ms=ms) for c, ms in times.items()},
        artifacts=dict.fromkeys(times),
    )


@pytest.mark.parametrize(
    ("asked", "able", "int8_ms", "nats", "found"),
    [
        (("int8", "mixed"), True, 1.0, 0.1, ["engine"]),
        (("int8",), True, 1.0, 0.1, []),
        (("int8", "mixed"), False, 1.0, 0.1, []),
        (("int8", "mixed"), True, 2.5, 0.1, []),  # slower than float
        (("int8", "mixed"), True, 1.0, 0.001, []),  # costs nothing
    ],
)
def test_where_mixtures_are_possible(asked, able, int8_ms, nats, found, monkeypatch):
    monkeypatch.setattr(contenders, "quantization_damage", lambda run, combination, artifact: nats)
    run = SimpleNamespace(
        request=SimpleNamespace(precisions=asked),
        data=object(),
        runtime=lambda name: SimpleNamespace(mixed=able),
    )
    assert mixable(run, baseline_of(2.0, int8_ms)) == found


def test_a_format_that_cannot_keep_a_layer_is_not_offered(monkeypatch):
    def refuse(*words):
        raise ConversionError("the weights of layer 'up' are not in the exported file")

    monkeypatch.setattr(contenders, "ladder", lambda run: [("up.weight",)])
    monkeypatch.setattr(contenders, "build_for", refuse)
    run = SimpleNamespace(program=None, notes=[], stage=lambda title, clock: nullcontext())
    assert contenders._mixtures(run, SimpleNamespace(), "engine") == ()
    assert run.notes == [
        "mixed precision is not offered in engine: the weights of layer 'up' are not in the exported file"
    ]
