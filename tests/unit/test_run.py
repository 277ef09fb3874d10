"""Measurements that finished runs keep, and those that the next run takes anew."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.unit.test_closing import measurement
from toolchain.run import MEASUREMENTS, disturbed, forget, note_disturbed
from toolchain.stages import Stages


def test_what_missed_is_measured_anew_and_the_rest_is_kept(tmp_path):
    stages = Stages(root=tmp_path / "work")

    def measured(*shas):
        def make(folder):
            (folder / MEASUREMENTS).write_text(json.dumps([{"sha256": sha} for sha in shas]))

        return stages.once("measured", shas, make)

    measured("original")
    measured("original", "narrow")
    measured("original", "missed")
    measured("missed")
    running = stages.root / "measured-0123.partial-1"
    running.mkdir()
    forget(SimpleNamespace(stages=stages), {"missed"})
    assert running.is_dir()
    assert [measured(*shas)[1] for shas in (("original",), ("original", "narrow"))] == [True, True]
    assert [measured(*shas)[1] for shas in (("original", "missed"), ("missed",))] == [False, False]


@pytest.mark.parametrize(
    ("medians", "said"),
    [
        ((1.0, 1.05, 0.98, 1.1, 1.02, 1.0), False),
        ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.9), False),  # one of twelve
        ((1.0, 1.5, 1.5, 1.5, 1.0, 1.0), True),  # two levels: a neighbour comes and goes
    ],
)
def test_trials_that_disagree_are_said(medians, said):
    found = replace(measurement(1.0), samples_ms=tuple((m, m, 9 * m) for m in medians))
    run = SimpleNamespace(notes=[])
    note_disturbed(run, "result", found)
    assert bool(disturbed(found)) == said == bool(run.notes)
    if said:
        assert run.notes[0].startswith("result in r fp32: its trials range from 1 to 1.5 ms")
