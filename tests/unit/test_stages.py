"""Finished stages, the result folder and the plug-in registry."""

import json

import pytest

from toolchain import registry
from toolchain.deliver import refuse_foreign_folder, replace_folder
from toolchain.errors import InputError
from toolchain.stages import Stages


def test_a_stage_is_made_once(tmp_path):
    stages, calls = Stages(root=tmp_path / "w"), []

    def make(folder):
        calls.append(folder)
        (folder / "x").write_text("1")

    first, reused = stages.once("s", {"a": 1}, make)
    again, reused_again = stages.once("s", {"a": 1}, make)
    other, _ = stages.once("s", {"a": 2}, make)
    assert (reused, reused_again, len(calls)) == (False, True, 2)
    assert first == again != other
    assert (first / "x").read_text() == "1"


def test_a_failed_stage_leaves_nothing(tmp_path):
    stages = Stages(root=tmp_path / "w")

    def fail(folder):
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.once("s", 1, fail)
    assert list((tmp_path / "w").iterdir()) == []


def test_the_result_folder_is_whole_or_absent(tmp_path):
    out = tmp_path / "out"

    def fail(folder):
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        replace_folder(out, fail)
    assert list(tmp_path.iterdir()) == []
    replace_folder(out, lambda f: (f / "a").write_text("1"))
    with pytest.raises(InputError):
        replace_folder(out, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "a").read_text() == "1"


def test_a_foreign_folder_is_refused_and_our_own_is_not(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a result of edgefit"):
        refuse_foreign_folder(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        refuse_foreign_folder(tmp_path / "notes.txt")
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "report.json").write_text(json.dumps({"schema": "edgefit.report/1"}))
    refuse_foreign_folder(ours)
    front = tmp_path / "front"
    front.mkdir()
    (front / "front.json").write_text(json.dumps({"schema": "edgefit.front/1"}))
    refuse_foreign_folder(front)
    with pytest.raises(InputError, match="not a result of edgefit"):
        refuse_foreign_folder(tmp_path)  # folders of ours are in it, but it is the user's
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".edgefit")]


def test_an_unknown_plugin_is_named_with_its_neighbour():
    assert {"magnitude", "random", "taylor"} <= set(registry.names("toolchain.prune.criteria"))
    with pytest.raises(InputError) as caught:
        registry.find("toolchain.prune.criteria", "CRITERION", "tailor")
    assert "did you mean 'taylor'" in caught.value.hint
