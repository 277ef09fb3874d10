"""Measurements that finished runs keep, and those that the next run takes anew."""

import json
from types import SimpleNamespace

from toolchain.run import MEASUREMENTS, forget
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
